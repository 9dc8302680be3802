import subprocess
import sys

import edit_process

PROBE = """
import os, resource, sys, threading
import numpy as np
if sys.argv[1] == "tuned":
    import edit_process
    edit_process.tune_for_cpu()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"

def work():
    np.ones(2**24)  # the first use has to fault its pages in
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(how: str) -> int:
    path = edit_process.__file__.rsplit("/", 1)[0]
    command = [sys.executable, "-c", PROBE, how]
    done = subprocess.run(
        command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_thread_s_freed_memory_is_kept() -> None:
    assert faults("tuned") < faults("as it is") / 10
