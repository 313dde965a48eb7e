"""The mLSTM by Triton kernels: `host.py` is the backend, `launches.py` launches, and only there Triton is needed."""
