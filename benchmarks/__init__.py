"""Programs that show what the library is worth: trained on real data, and measured beside its peers.

``python -m benchmarks`` measures value and gradient of every loss beside torch, JAX, scikit-learn, NumPy and the memory's own
speed; ``python -m benchmarks.real_data`` trains models in NumPy, SciPy and nlosses alone and compares them with scikit-learn;
``python -m benchmarks.trust`` compares gradcheck with other checkers of gradients, and ``python -m benchmarks.cuda`` is for a
machine with a GPU.
"""
