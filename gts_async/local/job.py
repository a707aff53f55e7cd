"""The job that runs when an order has no command: it fits a line to its own data and leaves a model.

By hand: ``python -m gts_async.local.job``. It stands alone on the standard library, so it also runs as a plain file.
Its volumes come from ``SXWL_CKPT_PATH`` and ``SXWL_MODEL_PATH``, the working directory where they are not set.
"""

import json
import os
import random
import sys
import zlib
from pathlib import Path

POINTS = 500
SLOPE, INTERCEPT, NOISE = 1.75, -4.0, 0.5


def observations(seed: int) -> list[tuple[float, float]]:
    """Give noisy points of one line, the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - data to learn from, no secret
    xs = [chance.uniform(-10.0, 10.0) for _ in range(POINTS)]
    return [(x, SLOPE * x + INTERCEPT + chance.gauss(0.0, NOISE)) for x in xs]


def fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Give slope and intercept of the least-squares line: slope = Σ(x - x̄)(y - ȳ) / Σ(x - x̄)²."""
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)
    return slope, y_mean - slope * x_mean


def squared_error(points: list[tuple[float, float]], slope: float, intercept: float) -> float:
    """Give the mean squared error of a line."""
    return sum((y - slope * x - intercept) ** 2 for x, y in points) / len(points)


def main() -> None:
    """Fit, test on points that were held out, and write checkpoint, model, metrics and a log."""
    job_id = os.environ.get("JOB_ID", "local")
    ckpt, model = (Path(os.environ.get(name, ".")) for name in ("SXWL_CKPT_PATH", "SXWL_MODEL_PATH"))
    points = observations(zlib.crc32(job_id.encode()))
    held_out, known = points[: POINTS // 5], points[POINTS // 5 :]
    slope, intercept = fit(known)
    line = {"slope": slope, "intercept": intercept}
    metrics = {"train_mse": squared_error(known, **line), "test_mse": squared_error(held_out, **line)}
    (ckpt / "last.json").write_text(json.dumps({"points_seen": len(known), **line}))
    (model / "model.json").write_text(json.dumps({"kind": "least squares line", **line}))
    (model / "metrics.json").write_text(json.dumps(metrics))
    report = f"{job_id}: y = {slope:.4f} x {intercept:+.4f}, test mse {metrics['test_mse']:.4f}\n"
    (model / "train.log").write_text(report)
    sys.stdout.write(report)


if __name__ == "__main__":
    main()
