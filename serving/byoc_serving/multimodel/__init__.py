"""Multi-model endpoints: ``SAGEMAKER_MULTI_MODEL=true``, each model in a process of its own.

::

    front (one gunicorn worker, either front)         HTTP, registry, admission
    └── zygote                                        torch imported, one thread, no CUDA
        ├── model process                             handler and model, forked from the zygote
        └── model process …

The front and the zygote talk over a control socket, the front and each model over a channel.
"""
