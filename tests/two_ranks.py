"""Two processes that train together, for what must come out as in one."""

import multiprocessing
import traceback

import torch
import torch.distributed as dist


def on_two_ranks(of_rank, folder, *arguments):
    """What ``of_rank(rank, *arguments)`` returns in each of two processes of one group, plain types; in the order in which they end."""
    context = multiprocessing.get_context("fork")  # a process that starts afresh imports for several seconds
    queue = context.Queue()
    given = [(of_rank, rank, folder / "store", queue, arguments) for rank in range(2)]
    processes = [context.Process(target=_on_rank, args=one, daemon=True) for one in given]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for one in found:
        assert not isinstance(one, str), one
    for process in processes:
        process.join()
    return found


def averaged(values):
    """The mean over both processes, as data-parallel training takes of gradients; lists."""
    for value in values:
        dist.all_reduce(value)
    return [(value / 2).tolist() for value in values]


def _on_rank(of_rank, rank, store, queue, arguments):
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        queue.put(of_rank(rank, *arguments))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        queue.put(traceback.format_exc())
