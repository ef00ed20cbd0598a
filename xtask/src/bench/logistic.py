"""Seconds of one epoch of scikit-learn's SGDClassifier, one line per run. Arguments: rows, columns, runs, float32 or float64."""

import sys
import time

import numpy
from sklearn.linear_model import SGDClassifier

rows, columns, runs = (int(argument) for argument in sys.argv[1:4])
rng = numpy.random.default_rng(1)
features = rng.standard_normal((rows, columns)).astype(sys.argv[4])
weights = rng.standard_normal(columns)
target = (rng.random(rows) < 1 / (1 + numpy.exp(-features @ weights))).astype(numpy.int64)
for _ in range(runs):
    model = SGDClassifier(
        loss="log_loss", max_iter=1, tol=None, shuffle=False, learning_rate="constant", eta0=0.01, alpha=1e-4
    )
    start = time.perf_counter()
    model.fit(features, target)
    print(time.perf_counter() - start, flush=True)
