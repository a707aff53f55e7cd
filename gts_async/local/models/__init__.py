"""What the local training makes of the engine's six pipelines: linear models on character features, one file each.

Each pipeline module has ``train(order, files) → Trained``, and its model's ``predict`` answers in the shape of the
engine's pipeline. Which engine trains what, and in which mode, is told by `gts_async.emulator.engine_training.fate`.
They import scikit-learn, so only a training process, and loading a model, imports them.
"""
