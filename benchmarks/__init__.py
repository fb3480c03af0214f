"""Programs that show what the library is worth: trained on real data, and measured beside its peers.

``python -m benchmarks.real_data`` trains models in NumPy, SciPy and nlosses alone and compares them with scikit-learn;
``python -m benchmarks.speed`` measures value and gradient beside torch, JAX and the memory's own speed.
"""
