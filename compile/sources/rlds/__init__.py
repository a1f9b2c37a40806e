"""RLDS datasets, as TensorFlow Datasets writes them, read without TensorFlow."""
