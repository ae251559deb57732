"""Jobs in several processes of one thread each, so that the results do not depend on the number of cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from ...common.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def run_jobs(jobs: Sequence[Job], work: Callable[[Job], Result], processes: int) -> Iterator[tuple[Job, Result]]:
    """Yield each job with its result when it is done. work: can be pickled; it keeps what is done, job by job.

    Raises UserError, one sentence, when a process is ended from outside.
    """
    if processes == 1 or len(jobs) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from ((job, work(job)) for job in jobs)
        finally:
            torch.set_num_threads(threads)
        return
    os.environ.update(ONE_THREAD)  # read by the new processes when they import torch; this one has imported it
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
    )
    waiting = {pool.submit(work, job): job for job in jobs}
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "A process of the experiment was ended from outside, perhaps for want of memory; what is done is kept: "
            "run the same command again, with fewer --jobs."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
