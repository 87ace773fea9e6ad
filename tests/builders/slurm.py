"""A real Slurm of two small nodes on this machine, on loopback; it needs root, and no systemd.

Debian and Ubuntu have it as `slurm-wlm slurmctld slurmd munge`. Both nodes are this machine under
two names, with four CPUs and two GPUs each that are there on paper only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Not in a folder of the test's: what runs inside a job drops SLURM_CONF from its environment.
CONFIG = Path("/etc/slurm")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("node1", "node2")
FIRST_PORT = 17001
# The sum of what both nodes say is more than the machine has, which Slurm is told to believe.
CPUS, GPUS, MEMORY_MB = 4, 2, 6000
# Seconds after which a node that does not answer is down.
TIMEOUT = 5

SLURM_CONF = """\
ClusterName=pretend
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout={timeout}
KillWait=2
MinJobAge=3600
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] \
CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


def why_not() -> str | None:
    """Why this machine cannot have a Slurm of ours; None where it can."""
    if not os.environ.get("PRUNESID_SLURM"):
        return "PRUNESID_SLURM=1 lets this test run a Slurm of its own, as root, for ten minutes"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): slurm-wlm slurmctld slurmd munge"
    if os.getuid() != 0:
        return "slurmd starts jobs as root only"
    if (CONFIG / "slurm.conf").exists():
        return f"this machine has a Slurm of its own ({CONFIG / 'slurm.conf'})"
    return None


class Slurm:
    """The running daemons."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        log = (self._folder / f"{name}.log").open("ab")
        self._running[name] = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()

    def start_node(self, name: str) -> None:
        self.start(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """The node's daemon and whatever it runs are gone, as when a machine loses its power."""
        running = [number for number, (_, node, _) in self.jobs().items() if node == name]
        self._running.pop(name).kill()
        # Who would tell Slurm how the job ended goes before the job.
        steps = tuple(f"slurmstepd: [{number}.".encode() for number in running)
        _kill(_processes("cmdline", lambda told: told.startswith(steps)))
        _kill(_processes("environ", _on_node(name)))

    def stop(self) -> None:
        """End the daemons and whatever still runs on the nodes."""
        for name in NODES:
            _kill(_processes("environ", _on_node(name)))
        for process in reversed(list(self._running.values())):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def jobs(self) -> dict[str, tuple[str, str, str]]:
        """{id: (state, node, rule)} of all jobs that Slurm remembers."""
        listed = _say("squeue", "--noheader", "--states=all", "--format=%i|%T|%N|%k")
        rows = (line.split("|") for line in listed.splitlines())
        return {number: (state, node, comment) for number, state, node, comment in rows}

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))


def _processes(file: str, is_one: Callable[[bytes], bool]) -> list[int]:
    """Processes of this machine by a file of theirs in /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / file).read_bytes()
        except OSError:  # it has ended
            continue
        if is_one(told):
            found.append(int(process.name))
    return found


def _on_node(name: str) -> Callable[[bytes], bool]:
    """Whether an environment is that of a job on the node, by what Slurm tells it."""
    return lambda told: f"SLURMD_NODENAME={name}".encode() in told.split(b"\0")


def _kill(processes: list[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(process, signal.SIGKILL)


def wait_for(happened: Callable[[], object], seconds: float, what: str) -> None:
    """Ask until `happened()` is true."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.5)


def _say(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Slurm while the context lasts; `folder` takes its state and logs."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", *NODES):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    last = FIRST_PORT + len(NODES) - 1
    conf = SLURM_CONF.format(
        host=host, folder=folder, port=FIRST_PORT - 1, first=FIRST_PORT, last=last,
        nodes=f"node[1-{len(NODES)}]", cpus=CPUS, gpus=GPUS, memory=MEMORY_MB, timeout=TIMEOUT,
    )  # fmt: skip
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    for number in range(GPUS):
        # Slurm wants a device; this one is the null device.
        os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    gres = f"NodeName=node[1-{len(NODES)}] Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n"
    files = {CONFIG / "slurm.conf": conf, CONFIG / "gres.conf": gres}
    slurm = Slurm(folder)
    with ExitStack() as stack:
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            stack.callback(path.unlink)
            path.write_text(text)
        stack.callback(slurm.stop)
        names = ("socket", "log-file", "pid-file", "seed-file")
        paths = {"key-file": key} | {name: folder / f"munge.{name}" for name in names}
        options = [f"--{name}={path}" for name, path in paths.items()]
        slurm.start("munged", "munged", "--foreground", "--force", *options)
        wait_for((folder / "munge.socket").exists, 10, "munge's socket")
        slurm.start("slurmctld", "slurmctld", "-D", "-c")
        for name in NODES:
            slurm.start_node(name)

        def is_up() -> bool:
            listed = subprocess.run(
                ["sinfo", "--noheader", "--format=%T %D"], capture_output=True, text=True
            )
            return listed.stdout.split() == ["idle", str(len(NODES))]

        try:
            wait_for(is_up, 30, "idle nodes")
        except TimeoutError as error:
            raise RuntimeError(slurm.log()) from error
        yield slurm
