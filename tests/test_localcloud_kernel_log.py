"""What a container is told of the host's kernel log. That it is: tests/test_mpi_faults.py."""

from __future__ import annotations

from ppe_jupyter.localcloud.machines.kernel_log import Kills

# As Linux 6 has it.
KILL = """\
R invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
memory: usage 500000kB, limit 500000kB, failcnt 62
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/lxc.payload.i-1,\
task_memcg=/lxc.payload.i-1,task=R,pid=4711,uid=1000
Memory cgroup out of memory: Killed process 4711 (R) total-vm:9kB, anon-rss:7kB, file-rss:1kB, shmem-rss:0kB
"""


def told(log: str, number: str) -> list[tuple[str, str]]:
    kills = Kills({"4711": number}.__getitem__)
    return [found for line in log.splitlines() if (found := kills.feed(line))]


def test_its_own_process_by_its_own_number() -> None:
    ((name, lines),) = told(KILL, "158")
    assert name == "i-1"
    assert lines.startswith(
        "memory: usage 500000kB, limit 500000kB, failcnt 62\nMemory cgroup out of memory: "
    )
    assert "Killed process 158 (R) total-vm:9kB, anon-rss:7kB" in lines


def test_nothing_of_others_and_nothing_unsure() -> None:
    assert told(KILL, "") == []
    assert told(KILL.replace("lxc.payload.i-1", "user.slice"), "158") == []
    assert told(KILL + KILL.splitlines()[-1].replace("4711", "4712"), "158") == told(KILL, "158")
    whole_machine = [line for line in KILL.splitlines() if not line.startswith("memory:")]
    assert told("\n".join(whole_machine).replace("Memory cgroup out", "Out"), "158")[0][1].startswith(
        "Out of memory"
    )
