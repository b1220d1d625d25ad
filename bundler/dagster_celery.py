"""A Celery app whose workers load states from the instance's defs state storage.

In place of ``dagster_celery.app``, which lets a worker execute steps without that storage: Dagster
then cannot load a code location with a versioned key, whatever it is to run there::

    dagster-celery worker start -A bundler.dagster_celery

Imports dagster and dagster_celery, as nothing else in this package does.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown
from dagster import DagsterInstance
from dagster_celery.app import app, execute_job, execute_plan, resume_job

__all__ = ["app", "execute_job", "execute_plan", "resume_job"]

_instance = ExitStack()


@worker_process_init.connect
def _enter(**_: Any) -> None:
    """Inside an instance, Dagster finds its storage; each worker process has its own."""
    _instance.enter_context(DagsterInstance.get())


@worker_process_shutdown.connect
def _leave(**_: Any) -> None:
    _instance.close()
