"""SageMaker's training contract: the command ``train``."""
