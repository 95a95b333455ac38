//! What systemd is told: the unit, and who it runs as.

use super::{CAPABILITIES_DIR, CONFIG, CONFIG_DIR, PROGRAM_NAME, STATE_DIR, USER};

/// Runs as a service user without any privilege. What a command may need beyond this is the administrator's decision, in
/// a drop-in: docs/agent.md says which key stands in whose way.
pub fn service(program: &str) -> String {
    format!(
        "\
# Written by `{PROGRAM_NAME} install`, which writes it anew. Changes belong in a drop-in: systemctl edit {PROGRAM_NAME}
[Unit]
Description=Fairlead agent: runs what this device is granted
After=network.target
# Until it is paired there is nothing to serve: that is no failure.
ConditionPathExists=|{STATE_DIR}/identity.json
ConditionPathExists=|{STATE_DIR}/pairing.json

[Service]
# Not notify: nothing waits for it to be connected, and `{PROGRAM_NAME} status` says whether it is.
Type=exec
ExecStart={program} run
ExecReload=/bin/kill -HUP $MAINPID
Environment=FAIRLEAD_STATE_DIR={STATE_DIR}
User={USER}
Group={USER}
Restart=on-failure
RestartSec=5
# Usage, not paired, wrong configuration: a person must do something first.
RestartPreventExitStatus=2 3 13
# The agent tells its commands to stop, and gives each its time; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=20
# A command that takes too much memory ends; the agent says so and goes on.
OOMPolicy=continue
# Each command in a group of its own, with its own bounds. This is why there is no ProtectControlGroups.
Delegate=memory pids

StateDirectory=fairlead
StateDirectoryMode=0700
# For a socket that people at the device may reach: they pass through, and nobody else sees what is there.
RuntimeDirectory=fairlead
RuntimeDirectoryMode=0711
UMask=0077
LimitCORE=0

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
# Not @resources: commands are bounded by setrlimit.
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
    )
}

/// For devices whose commands run as users of their own: the agent becomes root, with what it takes to become somebody
/// else, to end what they run, and nothing more. Their owner is what keeps the files of others from it.
pub const AS_ROOT: &str = "\
# Written by `fairlead-agent install --as-root`: declared commands may name a user.
[Service]
User=root
Group=root
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL
SystemCallFilter=@setuid
";

pub fn sysusers() -> String {
    format!("u {USER} - \"Fairlead agent\" {STATE_DIR} /usr/sbin/nologin\n")
}

/// The folder of the state must be there for `pair`, before the first start; and be its own user's after a change of that.
/// The configuration belongs to a group that an image has from its first boot on only.
pub fn tmpfiles(user: &str) -> String {
    format!(
        "\
d {STATE_DIR} 0700 {user} {user} -
Z {STATE_DIR} - {user} {user} -
z {CONFIG_DIR} 0750 root {USER} -
z {CAPABILITIES_DIR} 0750 root {USER} -
z {CONFIG} 0640 root {USER} -
"
    )
}
