"""How a job fares on many hosts: what its steps cost here, and a simulation of it that starts from these costs.

`benchmarks/simulate_scale.py` is the command. `costs.py` holds costs and assumptions, `measure.py` measures;
`claims.py`, `hosts.py` and `simulation.py` simulate; `large.py` is a job of 1e12 rows, `real_runs.py` has real ones.
"""
