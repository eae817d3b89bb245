"""How a job fares on many hosts: what its steps cost here, and a simulation of it that starts from these costs.

`simulate_scale.py` is the command. `costs.py` says what is measured and what is assumed, `measure.py` measures, `real_runs.py`
runs real jobs that the simulation must foretell, `hosts.py` and `simulation.py` simulate, `records.py` is arithmetic.
"""
