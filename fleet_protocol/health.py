"""The health catalog: every code that a device or the server can raise, with the words for it.

One code means one thing everywhere: console, command line, API, metrics and log read the same
entry. ``depends_on`` names the codes that, where raised, explain this one.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.messages import Severity
from fleet_protocol.texts import _, mark


@dataclass(frozen=True, slots=True)
class HealthCode:
    """One entry of the catalog; the texts are English and looked up when read."""

    code: str
    severity: Severity
    _title: str
    _meaning: str
    _next_step: str
    depends_on: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return _(self._title)

    @property
    def meaning(self) -> str:
        """What it means for the work."""
        return _(self._meaning)

    @property
    def next_step(self) -> str:
        """What to do next."""
        return _(self._next_step)


_CODES: Final = (
    HealthCode(
        "clock.untrusted",
        Severity.WARNING,
        mark("Clock not trusted"),
        mark(
            "The wall clock is before the software was built, far ahead of it, or may have stood still "
            "without power; readings are dated by the server."
        ),
        mark("Check the time service or the board's clock battery."),
    ),
    HealthCode(
        "sensor.timeout",
        Severity.WARNING,
        mark("Sensor does not answer"),
        mark("No answer within the time-out; its readings are reported as bad, without a value."),
        mark("Check power, cable, address and port of the sensor; then read it on site."),
    ),
    HealthCode(
        "sensor.refused",
        Severity.WARNING,
        mark("Sensor refuses the request"),
        mark(
            "The sensor answers with an exception: wrong register, function or unit, or a fault of its own."
        ),
        mark("Compare register addresses and types in the agent's configuration with the sensor's manual."),
    ),
    HealthCode(
        "sensor.stuck",
        Severity.WARNING,
        mark("Sensor is stuck"),
        mark(
            "The sensor answers and its value does not move; it is reported as suspect and no model sees it."
        ),
        mark("Look at the sensor on site: frozen, blocked, or its converter hangs."),
    ),
    HealthCode(
        "sensor.ended",
        Severity.INFO,
        mark("Recording has ended"),
        mark("A replayed recording has no more samples."),
        mark("Nothing, or set 'repeat' in the sensor's configuration."),
    ),
    HealthCode(
        "model.missing_runtime",
        Severity.CRITICAL,
        mark("Model has no runtime here"),
        mark(
            "None of the runtimes that the model allows can be imported; readings still flow, answers do not."
        ),
        mark("Install an extra of the agent that the model allows, for example 'argan[litert]'."),
    ),
    HealthCode(
        "model.refused",
        Severity.CRITICAL,
        mark("Model refused"),
        mark(
            "The model's files are missing, changed or contradictory, or its golden inputs fail on "
            "this board."
        ),
        mark("Read the detail; deliver the model again or give this board another one."),
    ),
    HealthCode(
        "model.crashed",
        Severity.WARNING,
        mark("Model worker crashed"),
        mark(
            "The process that runs the model died and was started again; windows in between have no answer."
        ),
        mark("If it repeats, give the board another runtime for this model and send a support bundle."),
    ),
    HealthCode(
        "policy.refused",
        Severity.CRITICAL,
        mark("Policy refused"),
        mark("The policy does not parse or does not fit its model; answers are reported, no rule acts."),
        mark("Read the detail; correct and publish the policy again."),
    ),
    HealthCode(
        "policy.rule_failed",
        Severity.WARNING,
        mark("Rule cannot be evaluated"),
        mark("A rule met a value that it cannot compute with; it did not act."),
        mark("Guard the rule against that value (see detail) and publish the policy again."),
    ),
    HealthCode(
        "spool.dropping",
        Severity.CRITICAL,
        mark("Readings are being dropped"),
        mark(
            "The store for unsent data is at its quota; the oldest readings make room and are told as a gap."
        ),
        mark("Restore the link, or raise the spool's quota."),
        depends_on=("link.down", "link.refused"),
    ),
    HealthCode(
        "spool.disk_full",
        Severity.CRITICAL,
        mark("Disk is full"),
        mark("New readings cannot be stored; they are counted and told as a gap when there is room."),
        mark("Free space on the device's data partition."),
    ),
    HealthCode(
        "spool.quarantined",
        Severity.CRITICAL,
        mark("Store was corrupt"),
        mark(
            "The store for unsent data could not be read; it was set aside and a new one begun. "
            "Unsent data is in the file set aside."
        ),
        mark("Keep the file '*.quarantined-*' for support; check the storage medium."),
    ),
    HealthCode(
        "link.down",
        Severity.WARNING,
        mark("No link to the broker"),
        mark("The broker cannot be reached; the device goes on and keeps its data."),
        mark("Check the uplink, the broker's address and the firewall."),
    ),
    HealthCode(
        "link.refused",
        Severity.CRITICAL,
        mark("Broker refuses this device"),
        mark(
            "The broker or its certificate check said no: expired, revoked or foreign certificate, "
            "or another client with this name."
        ),
        mark("Check the device's certificate and clock; enroll the device again if it was revoked."),
        depends_on=("certificate.grace",),
    ),
    HealthCode(
        "certificate.ends",
        Severity.WARNING,
        mark("Certificate is not renewed"),
        mark("A third or less of the certificate's life is left, and renewing it fails; it is tried again."),
        mark("Read the detail; then run 'edge-agent identity renew' on the device."),
        depends_on=("link.down",),
    ),
    HealthCode(
        "certificate.grace",
        Severity.CRITICAL,
        mark("Certificate has expired"),
        mark("The broker refuses the device until its certificate is renewed, which goes on by itself."),
        mark("If it stays, read 'certificate.ends'; after the server's grace, enroll the device again."),
    ),
    HealthCode(
        "link.unacknowledged",
        Severity.WARNING,
        mark("Server does not acknowledge"),
        mark(
            "The broker takes the data but the server does not confirm that it is stored; the device "
            "keeps it and sends again."
        ),
        mark("Look at the server's ingest and database."),
    ),
    HealthCode(
        "ack.refused",
        Severity.WARNING,
        mark("Acknowledgement refused"),
        mark(
            "The server acknowledged numbers that this device never gave out; nothing was deleted on "
            "its word."
        ),
        mark("Look for another device with the same identity; then look at the server's ingest."),
    ),
    HealthCode(
        "agent.fault",
        Severity.WARNING,
        mark("A part of the agent failed"),
        mark("A part of the agent failed in a way that it does not know; it is started again."),
        mark("Send the agent's log with the trace that it holds."),
    ),
    HealthCode(
        "broker.dropping",
        Severity.CRITICAL,
        mark("Broker drops messages"),
        mark("The broker's own queue limit was reached. Devices send again what was not acknowledged."),
        mark("Look for a stopped ingest; raise max_queued_messages or add capacity."),
        depends_on=("ingest.down",),
    ),
    HealthCode(
        "broker.down",
        Severity.CRITICAL,
        mark("Broker is down"),
        mark("The server cannot reach its broker; devices keep their data until it is back."),
        mark("Look at the broker's log in the server's data folder."),
    ),
    HealthCode(
        "ingest.down",
        Severity.CRITICAL,
        mark("Ingest is down"),
        mark(
            "The process that stores telemetry is not running, or cannot write its database; devices "
            "keep their data until it is back."
        ),
        mark(
            "Look at the server's log and at the room on the database's disk; it is started again by itself."
        ),
    ),
    HealthCode(
        "database.down",
        Severity.CRITICAL,
        mark("Database cannot be written"),
        mark("Telemetry is not being stored and not acknowledged; devices keep it."),
        mark("Check the database's disk and log."),
    ),
    HealthCode(
        "message.refused",
        Severity.WARNING,
        mark("Messages refused"),
        mark(
            "A device sends what is no message of this version, or what it may not send; it was "
            "counted and set aside."
        ),
        mark(
            "Compare the device's agent version with the server's; look for a foreign client with "
            "its certificate."
        ),
    ),
    HealthCode(
        "device.held",
        Severity.WARNING,
        mark("Device is held"),
        mark("Somebody keeps it out: neither broker nor server lets it in; it keeps what it measures."),
        mark("Look into why; then let it in again with 'fleet device release', or revoke it."),
    ),
    HealthCode(
        "device.flooding",
        Severity.CRITICAL,
        mark("Device floods the server"),
        mark(
            "It sent far more than a device can have to tell, and went on; it was cut off and is kept out. "
            "What was beyond its limits was not stored."
        ),
        mark(
            "Look for a foreign client with its certificate, or a faulty agent; then let it in again with "
            "'fleet device release', or revoke it."
        ),
    ),
    HealthCode(
        "device.silent",
        Severity.WARNING,
        mark("Device is silent"),
        mark("The device's connection is gone and nothing has been heard for longer than it should take."),
        mark("Check power and coverage at the site."),
        depends_on=("device.held", "device.flooding"),
    ),
    HealthCode(
        "update.refused",
        Severity.WARNING,
        mark("Update refused"),
        mark("An update was offered that this device must not accept; what ran before goes on running."),
        mark("Read the reason with 'edge-agent update explain'; it says what to do."),
    ),
    HealthCode(
        "update.failed",
        Severity.WARNING,
        mark("Update failed"),
        mark("A new version failed its test or its probation here; the version before runs again."),
        mark("Read the detail; publish a mended version under a higher release."),
    ),
    HealthCode(
        "update.unreachable",
        Severity.INFO,
        mark("Update server not reached"),
        mark("The update server did not answer; the device goes on with what it has and tries again."),
        mark("Check the uplink and the address in [updates], or bring the update on a stick."),
        depends_on=("link.down",),
    ),
    HealthCode(
        "versions.contradicted",
        Severity.CRITICAL,
        mark("Versions contradict each other"),
        mark(
            "What the broker says that this device runs is not what the device has signed: one of the two is "
            "forged, or the device's data folder was put back from a copy."
        ),
        mark("Compare 'fleet device show' with 'edge-agent update status' on site; then look at the broker."),
    ),
    HealthCode(
        "escalation.unanswered",
        Severity.WARNING,
        mark("Questions stay unanswered"),
        mark("The center did not answer in time; the local answers stand, marked uncertain."),
        mark("Look at the server's escalation service and at the link."),
        depends_on=("link.down", "link.refused"),
    ),
    HealthCode(
        "escalation.over_budget",
        Severity.INFO,
        mark("Escalation budget is used up"),
        mark("More windows were uncertain than this device may send to the center; the rest stay local."),
        mark("Calibrate the policy anew, or raise the budget."),
    ),
    HealthCode(
        "escalation.uncalibrated",
        Severity.WARNING,
        mark("Calibration does not hold"),
        mark("The policy's calibration has expired or is another model's; every answer is marked uncertain."),
        mark("Calibrate anew for the model that runs ('fleet calibrate') and publish the policy."),
    ),
    HealthCode(
        "profile.unknown",
        Severity.WARNING,
        mark("Firmware profile not known"),
        mark("The agent's configuration names a profile that this version does not have."),
        mark("Correct 'profile' in the configuration; 'edge-agent doctor' lists those there are."),
    ),
    HealthCode(
        "profile.exceeded",
        Severity.WARNING,
        mark("Board is outside its profile"),
        mark("The board has less than its profile promises, or the agent uses more than it allows."),
        mark("Run 'edge-agent doctor' on the board; it names each difference."),
    ),
    HealthCode(
        "authority.issuing_ends",
        Severity.WARNING,
        mark("Issuing authority ends soon"),
        mark(
            "Nothing that it signs lasts longer than itself; once it has ended, neither devices nor servers "
            "get certificates."
        ),
        mark(
            "Stop the server and run 'fleet-server authority renew-issuing', or with an offline root "
            "'request-issuing'."
        ),
    ),
    HealthCode(
        "authority.root_ends",
        Severity.WARNING,
        mark("Root of the fleet ends"),
        mark("Once it has ended, devices believe no server any more, and nobody can give them a new root."),
        mark("Run 'fleet-server authority rollover begin'; every device has to come by before the end."),
    ),
    HealthCode(
        "audit.checkpoint",
        Severity.WARNING,
        mark("Checkpoints cannot be written"),
        mark("The record of changes goes on, but what was signed of it does not reach the file for it."),
        mark("Read the detail: make room, or bring the share back; the server then catches up by itself."),
    ),
    HealthCode(
        "audit.broken",
        Severity.CRITICAL,
        mark("The record of changes was altered"),
        mark(
            "It does not hold what this server has signed before: somebody has changed it, or an older "
            "database was restored. Nothing more is signed."
        ),
        mark("Run 'fleet-server audit verify' and keep what it names; docs/audit.md says how to go on."),
    ),
    HealthCode(
        "rollouts.down",
        Severity.CRITICAL,
        mark("Rollouts stand still"),
        mark("The process that moves rollouts on is not running; devices keep what they have."),
        mark("Look at the server's log; it is started again by itself."),
    ),
    HealthCode(
        "guard.down",
        Severity.CRITICAL,
        mark("Nobody guards the broker"),
        mark(
            "The process that makes the broker obey revocations is not running; whoever is revoked now stays "
            "connected."
        ),
        mark("Look at the server's log; it is started again by itself."),
    ),
    HealthCode(
        "revocation.stuck",
        Severity.CRITICAL,
        mark("Revocations are not enforced"),
        mark(
            "The broker does not know the newest list of the revoked, or it cannot be made: who is revoked "
            "may still get in, and a list that is never renewed ends."
        ),
        mark(
            "Read the detail and the log of the guard. An outside broker has to fetch the list from "
            "/v1/device/crl."
        ),
        depends_on=("broker.down", "database.down"),
    ),
    HealthCode(
        "escalation.down",
        Severity.CRITICAL,
        mark("Escalation is down"),
        mark("The process that answers devices' questions is not running; their local answers stand."),
        mark("Look at the server's log; it is started again by itself."),
    ),
    HealthCode(
        "access.break_glass",
        Severity.CRITICAL,
        mark("Somebody broke the glass"),
        mark("A change was carried out without the approvals that it takes."),
        mark("Look at it with 'fleet proposal show ID'; whoever did not do it acknowledges it there."),
    ),
)

CATALOG: Final = {entry.code: entry for entry in _CODES}
"""Every known code."""
