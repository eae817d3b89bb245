"""What a user would pick instead, each tuned as its experts would: Parquet in, Parquet out, the same weights.

One short module per opponent; `common.py` holds what they share, `tuned.py` the settings of each on each workload.
None of them imports scanrnn_dist, so that their start-up and memory are their own.
"""
