# SPDX-License-Identifier: Apache-2.0
"""The executor's watchdogs: what must go on happening while a robot moves, and what is wrong when it stops.

No ROS types, no threads.
``nodes/chunk_executor`` owns one :class:`Watchdogs`, tells it what happens and asks :meth:`Watchdogs.check`
once a period. Thresholds and reactions are the robot YAML's (``robot_types.WatchdogsConfig``):

- ``observation_age``: the camera frame of the plan that is being executed is too old.
- ``chunk_age``: no chunk has been accepted for too long while a plan is being executed.
- ``policy_heartbeat``: nothing on ``policy/status``. Armed once something was heard there: chunks may come
  from something that is no policy node.
- ``period_overrun``: a period of the control loop began too late. Lasts for that one period.
- ``command_subscribers``: a command topic has no subscriber. After the activation one has ``GRACE_S`` to be
  discovered.

Whether ROS time and the measured joints can be trusted (``clock``, ``joint_state_age``) the execution asks
itself, with the same thresholds and reactions: without them it could not place a single command.

A sentence never changes while its cause lasts, so that a status is published and a line logged once a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gr00t_ros.faults import Fault
from gr00t_ros.robot_types import ExecutorConfig

NONE: tuple[Fault, ...] = ()
# Discovery takes some tenths of a second, on a loaded machine some seconds.
GRACE_S = 5.0


class Watchdogs:
    """Not thread safe: the control thread's alone. ``now_ns`` is ROS time, ``mono_ns`` monotonic time."""

    def __init__(self, config: ExecutorConfig, command_topics: Sequence[str], mono_ns: int) -> None:
        """``command_topics`` are those whose subscribers are watched, none in a dry run; ``mono_ns`` is when
        the executor was activated."""
        dogs = config.watchdogs
        self._observation_ns = round(dogs.observation_age.after * 1e9)
        self._chunk_ns = round(dogs.chunk_age.after * 1e9)
        self._heartbeat_ns = round(dogs.policy_heartbeat.after * 1e9)
        self._overrun_ns = round(dogs.period_overrun.after * 1e9)
        self._subscriber_ns = round(dogs.command_subscribers.after * 1e9)
        self._observation = Fault(
            f"the observation that is being executed is older than {dogs.observation_age.after:g} s",
            dogs.observation_age.reaction,
        )
        self._chunk = Fault(
            f"no chunk for more than {dogs.chunk_age.after:g} s while a plan is executed",
            dogs.chunk_age.reaction,
        )
        self._heartbeat = Fault(
            f"the policy gave no sign of life on policy/status for {dogs.policy_heartbeat.after:g} s",
            dogs.policy_heartbeat.reaction,
        )
        self._overrun = Fault(
            f"a period began more than {dogs.period_overrun.after:g} s late", dogs.period_overrun.reaction
        )
        self._unheard = {
            topic: Fault(f"nobody listens to {topic}", dogs.command_subscribers.reaction)
            for topic in command_topics
        }
        self._t_obs_ns = self._arrived_ns = 0
        self._end_ns: int | None = None  # when the newest chunk's plan is over; None while there is none
        # What was found too old stays so until a newer chunk: near its end the plan would be followed again.
        self._old = self._overdue = False
        self._heard_ns: int | None = None
        self._listened_ns = dict.fromkeys(
            command_topics, mono_ns + round(GRACE_S * 1e9) - self._subscriber_ns
        )

    # What happened.

    def accepted(self, t_obs_ns: int, end_ns: int, mono_ns: int) -> None:
        """A chunk was accepted at ``mono_ns``: its camera frame's stamp, and when its last step is due (ROS
        time)."""
        self._t_obs_ns, self._end_ns, self._arrived_ns = t_obs_ns, end_ns, mono_ns
        self._old = self._overdue = False

    def dropped(self) -> None:
        """No chunk is executed any more: stopped, started anew, or the clock jumped."""
        self._end_ns = None
        self._old = self._overdue = False

    def heard(self, mono_ns: int) -> None:
        """The policy gave a sign of life."""
        self._heard_ns = mono_ns

    def counted(self, subscribers: Mapping[str, int], mono_ns: int) -> None:
        """How many subscribers each command topic has now."""
        for topic, count in subscribers.items():
            if count:
                self._listened_ns[topic] = mono_ns

    # What is wrong.

    def check(self, now_ns: int, mono_ns: int, late_ns: int) -> tuple[Fault, ...]:
        """The faults of this period, which began ``late_ns`` too late; the gravest first."""
        faults: list[Fault] | None = None
        if late_ns > self._overrun_ns:
            faults = _more(faults, self._overrun)
        for topic, listened_ns in self._listened_ns.items():
            if mono_ns - listened_ns > self._subscriber_ns:
                faults = _more(faults, self._unheard[topic])
        if self._heard_ns is not None and mono_ns - self._heard_ns > self._heartbeat_ns:
            faults = _more(faults, self._heartbeat)
        if self._end_ns is not None and now_ns < self._end_ns:
            self._old = self._old or now_ns - self._t_obs_ns > self._observation_ns
            self._overdue = self._overdue or mono_ns - self._arrived_ns > self._chunk_ns
        if self._old:
            faults = _more(faults, self._observation)
        if self._overdue:
            faults = _more(faults, self._chunk)
        if faults is None:
            return NONE
        faults.sort(key=_gravity, reverse=True)
        return tuple(faults)


def _more(faults: list[Fault] | None, fault: Fault) -> list[Fault]:
    """``faults`` and one more. Most periods have none, and make no list."""
    if faults is None:
        return [fault]
    faults.append(fault)
    return faults


def _gravity(fault: Fault) -> int:
    return fault.reaction
