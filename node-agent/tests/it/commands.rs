//! Declared commands and what opens things on a screen, with real processes.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use node_agent::{
    capability::{
        About, Call, Failure, Registry,
        live::{self, Live, Source},
        progress::{Reporter, Step},
        spool::Spools,
    },
    config::{Config, Desktop},
    host::clock,
    journal::Uid,
};
use proto::node::{self, FailureCode};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{gateway::soon, skipped::skipped};

const AGENT: &str = env!("CARGO_BIN_EXE_fairlead-agent");
/// What scripts are run with: a script that is run itself must not be open for writing anywhere, and another test's
/// child may have inherited that for a moment.
const SHELL: &str = "/bin/sh";

/// A device with a folder of declarations.
struct Device {
    temporary: tempfile::TempDir,
    desktop: Desktop,
    launcher: PathBuf,
}

impl Device {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join("capabilities.d")).unwrap();
        Self {
            temporary,
            desktop: Desktop::default(),
            launcher: PathBuf::from(AGENT),
        }
    }

    /// One with the capability `test.it`: a script, and more keys.
    fn with(script: &str, keys: &str) -> Self {
        let device = Self::new();
        device.declare("it.toml", "test.it", script, keys);
        device
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// `script` runs in the device's folder, with `$1`... from `args`, where `keys` has any.
    fn declare(&self, file: &str, name: &str, script: &str, keys: &str) {
        let path = self.write(&format!("{file}.sh"), script);
        let keys = if keys.contains("args = ") {
            keys.replace("SCRIPT", path.to_str().unwrap())
        } else {
            format!("args = [\"{}\"]\n{keys}", path.display())
        };
        self.write(
            &format!("capabilities.d/{file}"),
            &format!(
                "[[capability]]\nname = \"{name}\"\ncommand = \"{SHELL}\"\nworking_directory = \"{}\"\n{keys}\n",
                self.temporary.path().display()
            ),
        );
    }

    fn source(&self) -> Source {
        let config = Config {
            capabilities_dir: self.at("capabilities.d"),
            desktop: self.desktop.clone(),
            ..Config::default()
        };
        Source::new(None, config, About::default(), &self.launcher)
    }

    fn registry(&self) -> Registry {
        let (registry, problems) = self.source().load();
        assert_eq!(problems, []);
        registry
    }

    async fn run(&self, input: Value) -> Result<Value, Failure> {
        run(&self.registry(), "test.it", call(&input)).await
    }

    /// What a script wrote, once it is there.
    async fn read(&self, name: &str) -> String {
        soon(async {
            loop {
                match fs::read_to_string(self.at(name)) {
                    Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                    Ok(_) | Err(_) => sleep(Duration::from_millis(2)).await,
                }
            }
        })
        .await
    }
}

fn call(input: &Value) -> Call {
    Call {
        input: input.to_string().into_bytes(),
        max_output_bytes: 65_536,
        spool: None,
        requested_by: "jane".to_owned(),
        stopped: CancellationToken::new(),
        progress: Reporter::default(),
    }
}

async fn run(registry: &Registry, name: &str, call: Call) -> Result<Value, Failure> {
    let output = soon(registry.get(name).unwrap().run(call)).await?;
    Ok(serde_json::from_slice(&output).unwrap())
}

/// A folder for large outputs, of a device whose gateways store so much.
fn spools(device: &Device, stored: u64) -> Spools {
    let spools = Spools::new(device.at("artefacts"), 1 << 30);
    spools.gateways_store(stored);
    spools
}

/// What a script that writes more than may be told ends with, and what is kept of it.
async fn large(device: &Device, spools: &Spools) -> Result<Option<node::Artefact>, Failure> {
    let spool = spools.spool(&Uid::parse("u1").unwrap());
    let call = Call {
        max_output_bytes: 1_000,
        spool: Some(spool.clone()),
        ..call(&json!(null))
    };
    let registry = device.registry();
    let run = registry.get("test.it").unwrap().run(call);
    soon(run).await.map(|_| spool.take())
}

/// Whether nothing is kept.
fn is_empty(device: &Device) -> bool {
    fs::read_dir(device.at("artefacts")).map_or(true, |mut files| files.next().is_none())
}

#[tokio::test]
async fn an_output_that_is_too_large_goes_to_a_file_as_it_is() {
    for (script, media_type) in [
        (
            "printf '[\"'; head -c 3000000 /dev/zero | tr '\\0' x; printf '\"]\\n'",
            "application/json",
        ),
        ("head -c 3000000 /dev/zero", "application/octet-stream"),
    ] {
        let device = Device::with(
            &format!("({script}) | tee copy\n"),
            "max_output_bytes = 4000000",
        );
        let artefact = large(&device, &spools(&device, u64::MAX))
            .await
            .unwrap()
            .unwrap();
        let written = fs::read(device.at("copy")).unwrap();
        assert!(fs::read(device.at("artefacts/u1")).unwrap() == written);
        assert_eq!(artefact.sha256, Sha256::digest(&written).to_vec());
        assert_eq!(artefact.size_bytes, written.len() as u64);
        assert_eq!(artefact.media_type, media_type);
    }
}

#[tokio::test]
async fn what_nobody_stores_is_stopped_and_says_whose_bound_it_is() {
    for (keys, stored, says) in [
        (
            "max_output_bytes = 4000000",
            0,
            "1000 bytes, the most that is asked for, and the gateways have no store",
        ),
        (
            "max_output_bytes = 4000000",
            20_000,
            "20000 bytes, the most that the gateways store",
        ),
        (
            "max_output_bytes = 30000",
            u64::MAX,
            "30000 bytes, the most that this device lets it write",
        ),
        (
            "max_output_bytes = 900",
            u64::MAX,
            "900 bytes, the most that this device lets it write",
        ),
    ] {
        let device = Device::with("exec head -c 3000000 /dev/zero\n", keys);
        let failure = large(&device, &spools(&device, stored)).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::OutputTooLarge);
        assert!(failure.message.contains(says), "{failure}");
        assert!(is_empty(&device));
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_command_that_fails_or_has_no_disk() {
    let device = Device::with(
        "head -c 300000 /dev/zero\nexit 3\n",
        "max_output_bytes = 4000000",
    );
    let failure = large(&device, &spools(&device, u64::MAX))
        .await
        .unwrap_err();
    assert_eq!(failure.code, FailureCode::CapabilityFailed);
    assert!(is_empty(&device));

    let device = Device::with(
        "exec head -c 300000 /dev/zero\n",
        "max_output_bytes = 4000000",
    );
    fs::write(device.at("artefacts"), b"in the way").unwrap();
    let failure = large(&device, &spools(&device, u64::MAX))
        .await
        .unwrap_err();
    assert_eq!(failure.code, FailureCode::ArtefactNotStored);
    assert!(!failure.message.contains('/'), "{failure}");
}

fn code(result: &Result<Value, Failure>) -> FailureCode {
    result.as_ref().unwrap_err().code
}

/// Whether a process is no more, or only its number is left for its parent.
fn is_gone(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => true,
        Ok(stat) => {
            let (_, after_name) = stat.rsplit_once(')').unwrap();
            matches!(after_name.trim_start().chars().next(), Some('Z' | 'X'))
        }
    }
}

async fn await_gone(pid: &str) {
    soon(async {
        while !is_gone(pid) {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_input_comes_on_stdin_and_the_output_is_json() {
    let device = Device::with("cat", "");
    let input = json!({"a": [1, "x"], "b": null});
    assert_eq!(device.run(input.clone()).await.unwrap(), input);

    let silent = Device::with("cat > /dev/null; echo", "");
    assert_eq!(silent.run(input.clone()).await.unwrap(), Value::Null);
    let deaf = Device::with("exec 0<&-; echo 1", "");
    assert_eq!(deaf.run(input.clone()).await.unwrap(), json!(1));
    let wordy = Device::with("echo done", "");
    let result = wordy.run(input).await;
    assert_eq!(code(&result), FailureCode::CapabilityFailed);
    assert!(result.unwrap_err().message.contains("no JSON"));
}

#[tokio::test]
async fn a_command_says_how_far_it_is_and_that_is_no_error() {
    let script = "echo 'fairlead-progress 40 two of five' >&2; echo failed >&2; read line; exit 3";
    let device = Device::with(script, "");
    let (progress, heard) = Reporter::new();
    let call = Call {
        progress,
        ..call(&json!(1))
    };
    let result = run(&device.registry(), "test.it", call).await;
    assert_eq!(*heard.borrow(), Some(Step::new(40, "two of five")));
    let message = result.unwrap_err().message;
    assert_eq!(message, "it ended with exit code 3: failed");
}

fn hex(text: &str) -> String {
    let digits = text.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(digit.into(), 16).unwrap())
        .collect()
}

#[tokio::test]
async fn what_comes_from_the_input_is_one_argument_and_nothing_in_it_is_run() {
    let script =
        "printf '\"%s:' $#; printf '%s|' \"$@\" | od -An -v -tx1 | tr -d ' \\n'; printf '\"'";
    let keys = "args = [\"SCRIPT\", \"{input.who}\", \"a b\", \"{input.n}\"]";
    let device = Device::with(script, keys);
    let odd = "x  y'\"`touch made`$(touch made);touch made\n*&|>made\\";
    let output = device.run(json!({"who": odd, "n": 2.5})).await.unwrap();
    let expected = hex(&format!("{odd}|a b|2.5|"));
    assert_eq!(output, json!(format!("3:{expected}")));
    assert!(!device.at("made").exists());

    for input in [
        json!({}),
        json!({"who": [], "n": 1}),
        json!({"who": "-x", "n": 1}),
    ] {
        let result = device.run(input).await;
        assert_eq!(code(&result), FailureCode::InvalidInput);
    }
}

#[tokio::test]
async fn the_environment_is_empty_but_for_what_is_listed() {
    let script =
        "printf '\"'; tr '\\0' '\\n' < /proc/$$/environ | cut -d= -f1 | tr '\\n' ' '; printf '\"'";
    let device = Device::with(script, "");
    assert_eq!(device.run(json!(null)).await.unwrap(), json!(""));
    let keys = "env = [\"PATH\", \"NOBODY_SET_THIS\"]";
    let device = Device::with(script, keys);
    assert_eq!(device.run(json!(null)).await.unwrap(), json!("PATH "));
}

#[tokio::test]
async fn a_command_is_bounded_and_leads_a_group_of_its_own() {
    let script = "field() { sed -n \"s/^$1:[[:space:]]*//p\" /proc/$$/status; }\n\
                  group=$(cut -d' ' -f5 /proc/$$/stat)\n\
                  printf '[%s,%s,\"%s\",%s,%s]' \"$(field NoNewPrivs)\" \"$(ulimit -d)\" \"$(ulimit -v)\" \"$(ulimit -c)\" \"$((group == $$))\"";
    let device = Device::with(script, "memory_bytes = 67108864");
    let output = device.run(json!(null)).await.unwrap();
    assert_eq!(output, json!([1, 65536, "unlimited", 0, 1]));
    let keys = "memory_bytes = 67108864\naddress_space_bytes = 134217728";
    let output = Device::with(script, keys).run(json!(null)).await.unwrap();
    assert_eq!(output, json!([1, 65536, "131072", 0, 1]));

    // It is more than a number: what wants more does not get it.
    let hungry = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo 1";
    let device = Device::with(hungry, "memory_bytes = 67108864");
    let result = device.run(json!(null)).await;
    assert_eq!(code(&result), FailureCode::CapabilityFailed);
    let device = Device::with(hungry, "");
    assert_eq!(device.run(json!(null)).await.unwrap(), json!(1));
}

/// They reserve gigabytes of address space, of which they use megabytes.
#[tokio::test]
async fn programs_of_go_node_and_java_start_within_memory_bytes_and_are_kept_within_it() {
    let take = "let all = []; for (;;) all.push(Buffer.alloc(1048576, 1))";
    for (program, starts, hungry) in [
        ("go", "version".to_owned(), None),
        ("node", "-e 1".to_owned(), Some(format!("-e '{take}'"))),
        ("java", "-Xmx64m -version".to_owned(), None),
    ] {
        let found = Device::with(
            &format!("command -v {program} > /dev/null; echo $?"),
            "env = [\"PATH\"]",
        );
        if found.run(json!(null)).await.unwrap() != json!(0) {
            skipped(
                "memory_bytes of a program",
                format!("there is no {program}"),
            );
            continue;
        }
        let keys = "env = [\"PATH\"]\nmemory_bytes = 536870912";
        let device = Device::with(&format!("exec >&2; {program} {starts}"), keys);
        let output = device.run(json!(null)).await;
        assert_eq!(output.unwrap(), json!(null), "{program}");
        if let Some(hungry) = hungry {
            let device = Device::with(&format!("exec {program} {hungry}"), keys);
            let result = device.run(json!(null)).await;
            assert_eq!(code(&result), FailureCode::CapabilityFailed, "{program}");
        }
    }
}

#[test]
fn a_program_that_is_missing_is_reported_with_the_file_and_the_line_that_name_it() {
    let device = Device::new();
    let path = device.write(
        "capabilities.d/a.toml",
        "# first\n[[capability]]\nname = \"test.it\"\ncommand = \"/nowhere/it\"\n",
    );
    let (registry, problems) = device.source().load();
    assert_eq!(
        registry.get("test.it").unwrap().availability(),
        node::Availability::Unavailable
    );
    let [problem] = &problems[..] else {
        unreachable!("one thing is wrong: {problems:?}");
    };
    let expected = format!(
        "{}:4: command: test.it is not available: /nowhere/it: there is no such program",
        path.display()
    );
    assert!(problem.to_string().starts_with(&expected), "{problem}");
}

/// What a process says of its own bounds.
const BOUNDS: &str = "bound() { sed -n \"s/^Max $1  *\\([0-9a-z]*\\) .*/\\1/p\" /proc/self/limits; }\n\
                      printf '[%s,%s]' \"$(bound 'open files')\" \"$(bound 'file size')\"";

#[tokio::test]
async fn files_are_bounded_in_number_and_size_whatever_is_declared() {
    let device = Device::with(BOUNDS, "");
    let output = device.run(json!(null)).await.unwrap();
    assert_eq!(output, json!([1024, 4_294_967_296_u64]));
    let device = Device::with(BOUNDS, "max_open_files = 64\nmax_file_bytes = 4096");
    assert_eq!(device.run(json!(null)).await.unwrap(), json!([64, 4096]));

    // They are more than numbers.
    let writes = "exec head -c 8192 /dev/zero > big";
    let device = Device::with(writes, "max_file_bytes = 4096");
    let failure = device.run(json!(null)).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::CapabilityFailed);
    assert!(failure.message.contains("max_file_bytes"), "{failure}");
    assert_eq!(fs::metadata(device.at("big")).unwrap().len(), 4096);
    // What it says is no file.
    let says = "printf '\"'; head -c 8192 /dev/zero | tr '\\0' x; printf '\"'";
    let device = Device::with(says, "max_file_bytes = 0");
    assert!(device.run(json!(null)).await.unwrap().is_string());
}

#[tokio::test]
async fn a_user_of_its_own_bounds_what_a_command_starts() {
    if !rustix::process::geteuid().is_root() {
        skipped(
            "max_processes of a user",
            "only root can run a command as another user",
        );
        return;
    }
    let mut device = Device::new();
    let agent = File::open(AGENT).unwrap();
    device.launcher = PathBuf::from(format!("/proc/self/fd/{}", agent.as_raw_fd()));
    let declare = |script: &str, keys: &str| {
        let text = format!(
            "[[capability]]\nname = \"test.it\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", '''{script}''']\n\
             env = [\"PATH\"]\nuser = \"64999\"\ngroup = \"64999\"\n{keys}\n"
        );
        device.write("capabilities.d/it.toml", &text);
    };
    let bound = "sed -n \"s/^Max processes  *\\([0-9a-z]*\\) .*/\\1/p\" /proc/self/limits";
    declare(bound, "");
    assert_eq!(device.run(json!(null)).await.unwrap(), json!(4096));
    declare(bound, "max_processes = 20");
    assert_eq!(device.run(json!(null)).await.unwrap(), json!(20));
    // One that starts more than that comes to an end, and the next run finds room.
    let bomb = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo 1";
    declare(bomb, "max_processes = 20");
    let failure = device.run(json!(null)).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::CapabilityFailed);
    assert!(failure.message.to_lowercase().contains("fork"), "{failure}");
    declare("echo 1", "max_processes = 20");
    soon(async {
        while device.run(json!(null)).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_user_has_no_groups_of_the_agents() {
    let mut device = Device::new();
    // Other users may not reach the place where the program was built, but what is open needs no way to it.
    let agent = File::open(AGENT).unwrap();
    device.launcher = PathBuf::from(format!("/proc/self/fd/{}", agent.as_raw_fd()));
    device.write(
        "capabilities.d/it.toml",
        "[[capability]]\nname = \"test.it\"\ncommand = \"/bin/sh\"\n\
         args = [\"-c\", \"echo [$(id -u),$(id -g),$(id -G)]\"]\nuser = \"65534\"\ngroup = \"65533\"\n",
    );
    if rustix::process::geteuid().is_root() {
        let output = device.run(json!(null)).await.unwrap();
        assert_eq!(output, json!([65534, 65533, 65533]));
    } else {
        let (registry, problems) = device.source().load();
        assert!(registry.get("test.it").is_none());
        assert!(
            problems[0]
                .to_string()
                .contains("it.toml:5: user: only an agent that runs as root")
        );
    }
}

#[tokio::test]
async fn a_failure_tells_the_exit_code_and_the_last_words() {
    let device = Device::with("echo '{\"half\":'; echo no space left >&2; exit 3", "");
    let failure = device.run(json!(null)).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::CapabilityFailed);
    assert_eq!(failure.message, "it ended with exit code 3: no space left");

    let device = Device::new();
    device.write(
        "capabilities.d/it.toml",
        "[[capability]]\nname = \"test.it\"\ncommand = \"/nowhere/it\"\n",
    );
    let (registry, problems) = device.source().load();
    assert!(
        problems[0].to_string().contains("/nowhere/it"),
        "{problems:?}"
    );
    let declared = registry.declared();
    let declared = declared.iter().find(|one| one.name == "test.it").unwrap();
    assert_eq!(
        declared.availability(),
        proto::node::Availability::Unavailable
    );
}

#[tokio::test]
async fn output_is_bounded_while_it_is_read() {
    let device = Device::with(
        "echo $$ > pid; while :; do echo 0123456789012345; done",
        "max_output_bytes = 1000",
    );
    let result = device.run(json!(null)).await;
    assert_eq!(code(&result), FailureCode::OutputTooLarge);
    assert!(is_gone(&device.read("pid").await));

    // The invocation's own bound counts where it is smaller.
    let device = Device::with("echo '\"0123456789\"'", "");
    let mut call = call(&json!(null));
    call.max_output_bytes = 11;
    let result = run(&device.registry(), "test.it", call).await;
    assert_eq!(code(&result), FailureCode::OutputTooLarge);
}

#[tokio::test]
async fn what_ignores_the_stop_is_killed_after_its_grace_with_all_its_children() {
    let device = Device::with(
        "trap '' TERM; sh -c 'echo $$ > child; sleep 1000' & echo $$ > pid; wait; sleep 1000",
        "grace_seconds = 1",
    );
    let registry = device.registry();
    let capability = registry.get("test.it").unwrap();
    let call = call(&json!(null));
    let stopped = call.stopped.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { capability.run(call).await });
    let (pid, child) = (device.read("pid").await, device.read("child").await);
    assert!(!is_gone(&pid) && !is_gone(&child));

    let asked = clock::now();
    stopped.cancel();
    let result = soon(tasks.join_next()).await.unwrap().unwrap();
    let took = clock::now().since(asked);
    assert_eq!(result.unwrap_err().code, FailureCode::Cancelled);
    assert!(took >= Duration::from_secs(1), "{took:?}");
    // Reaped by the agent itself.
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    await_gone(&child).await;
}

#[tokio::test]
async fn what_heeds_the_stop_may_end_in_good_order() {
    for (words, expected) in [("echo 7", Some(json!(7))), (":", None)] {
        let script =
            format!("trap '{words}; exit 0' TERM; echo $$ > pid; while :; do sleep 0.01; done");
        let device = Device::with(&script, "");
        let registry = device.registry();
        let call = call(&json!(null));
        let stopped = call.stopped.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { run(&registry, "test.it", call).await });
        device.read("pid").await;
        stopped.cancel();
        let result = soon(tasks.join_next()).await.unwrap().unwrap();
        // To say nothing is no success.
        assert_eq!(result.ok(), expected);
    }
}

#[tokio::test]
async fn dropping_a_run_kills_it() {
    let device = Device::with("echo $$ > pid; sleep 1000", "");
    let registry = device.registry();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { run(&registry, "test.it", call(&json!(null))).await });
    let pid = device.read("pid").await;
    tasks.shutdown().await;
    // Reaped, too, by the runtime.
    soon(async {
        while Path::new(&format!("/proc/{pid}")).exists() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_killed_and_its_answer_stands() {
    let device = Device::with(
        "sleep 1000 > /dev/null 2>&1 & echo $! > quiet; sleep 1000 & echo $! > loud; echo 1",
        "",
    );
    assert_eq!(device.run(json!(null)).await.unwrap(), json!(1));
    for left in ["quiet", "loud"] {
        await_gone(&device.read(left).await).await;
    }
    // What left the group is out of reach, but nobody waits for it.
    let device = Device::with("setsid sleep 30 & echo $! > away; echo 1", "");
    assert_eq!(device.run(json!(null)).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_command_has_its_own_time() {
    let device = Device::with("echo $$ > pid; exec sleep 1000", "timeout_seconds = 1");
    let result = device.run(json!(null)).await;
    assert_eq!(code(&result), FailureCode::DeadlineExceeded);
    assert!(is_gone(&device.read("pid").await));
}

#[tokio::test]
async fn a_command_dies_with_the_agent() {
    let device = Device::new();
    let script =
        format!("{AGENT} exec-capability --parent=$$ -- /bin/sleep 1000 & echo $!\nwait\nexit\n");
    let path = device.write("agent.sh", &script);
    let mut agent = Command::new(SHELL)
        .arg(path)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let pid = soon(lines.next_line()).await.unwrap().unwrap();
    let name = format!("/proc/{pid}/comm");
    soon(async {
        while fs::read_to_string(&name).unwrap().trim() != "sleep" {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    agent.start_kill().unwrap();
    agent.wait().await.unwrap();
    await_gone(&pid).await;
}

/// The names of what is declared on top of what is built in.
fn declared(live: &Live) -> Vec<String> {
    let declared = live.current().declared().into_iter().map(|one| one.name);
    declared
        .filter(|name| name != "echo" && !name.starts_with("system."))
        .collect()
}

async fn await_declared(live: &mut Live, expected: &[&str]) {
    soon(async {
        while declared(live) != expected {
            live.changed().await;
            live.see();
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_of_the_folder_is_noticed_and_what_runs_goes_on() {
    let device = Device::with(
        "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done; echo 1",
        "",
    );
    let (mut live, keeper) = live::start(device.source());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let keeping = keeper
        .looking_every(Duration::from_millis(5))
        .run(stop.clone());
    tasks.spawn(async move { keeping.await.map(|()| Value::Null) });
    assert_eq!(declared(&live), ["test.it"]);

    let registry = live.current();
    let mut running = JoinSet::new();
    running.spawn(async move { run(&registry, "test.it", call(&json!(null))).await });
    device.read("pid").await;
    device.declare("more.toml", "test.more", "echo 2", "");
    await_declared(&mut live, &["test.it", "test.more"]).await;
    fs::remove_file(device.at("capabilities.d/it.toml")).unwrap();
    await_declared(&mut live, &["test.more"]).await;
    device.write("capabilities.d/bad.toml", "[[capability]]\nname = 1\n");
    device.declare("zz.toml", "test.zz", "echo 2", "");
    await_declared(&mut live, &["test.more", "test.zz"]).await;

    device.write("go", "");
    assert_eq!(
        soon(running.join_next()).await.unwrap().unwrap().unwrap(),
        json!(1)
    );
    stop.cancel();
    soon(tasks.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn sighup_reads_everything_again() {
    let device = Device::new();
    device.declare("it.toml", "test.it", "echo 1", "");
    let config = |folder: &str| {
        let folder = device.at(folder);
        let text = format!("capabilities_dir = \"{}\"\n", folder.display());
        device.write("agent.toml", &text)
    };
    let path = config("nowhere");
    let read = Config::read(Some(&path)).unwrap();
    let source = Source::new(Some(path), read, About::default(), Path::new(AGENT));
    // Without somebody who listens it would end this process.
    let _listening = signal(SignalKind::hangup()).unwrap();
    let (mut live, keeper) = live::start(source);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(
        keeper
            .looking_every(Duration::from_hours(1))
            .run(stop.clone()),
    );
    assert_eq!(declared(&live), [""; 0]);
    config("capabilities.d");
    await_hangup(&mut live, &["test.it"]).await;

    // What cannot be read changes nothing; the folder is read again all the same.
    device.write("agent.toml", "x = 1");
    device.declare("more.toml", "test.more", "echo 1", "");
    await_hangup(&mut live, &["test.it", "test.more"]).await;
    stop.cancel();
    soon(tasks.join_next()).await.unwrap().unwrap().unwrap();
}

/// Sends SIGHUP until there is what is expected.
async fn await_hangup(live: &mut Live, expected: &[&str]) {
    soon(async {
        while declared(live) != expected {
            kill_process(getpid(), Signal::HUP).unwrap();
            sleep(Duration::from_millis(2)).await;
            live.see();
        }
    })
    .await;
}

#[tokio::test]
async fn the_opener_gets_one_argument_and_is_not_waited_for_when_it_failed() {
    let mut device = Device::new();
    let script = device.write("opener.sh", "printf '%s\\n' $# \"$@\" > opened\n");
    let folder = device.temporary.path().to_owned();
    device.write("a file", "x");
    device.desktop = Desktop {
        open_url: true,
        opener: vec![
            SHELL.to_owned(),
            "-c".to_owned(),
            format!("cd '{}'; . '{}'", folder.display(), script.display()),
            "opener".to_owned(),
            "--new".to_owned(),
        ],
        open_path_roots: vec![folder.clone()],
    };
    let registry = device.registry();
    for name in ["desktop.open_url", "desktop.open_path"] {
        let execution = registry.get(name).unwrap().execution();
        assert_eq!(execution, proto::node::Execution::Mediated);
    }
    let input = json!({"url": "https://example.com/a?b=$(id)"});
    let output = run(&registry, "desktop.open_url", call(&input)).await;
    assert_eq!(
        output.unwrap(),
        json!({"opened": "https://example.com/a?b=$(id)"})
    );
    assert_eq!(
        device.read("opened").await,
        "2\n--new\nhttps://example.com/a?b=$(id)"
    );

    fs::remove_file(device.at("opened")).unwrap();
    let file = fs::canonicalize(device.at("a file")).unwrap();
    let output = run(&registry, "desktop.open_path", call(&json!({"path": file}))).await;
    assert_eq!(output.unwrap(), json!({"opened": file}));
    assert_eq!(
        device.read("opened").await,
        format!("2\n--new\n{}", file.display())
    );

    for (name, input) in [
        ("desktop.open_url", json!({"url": "file:///etc/passwd"})),
        (
            "desktop.open_url",
            json!({"url": "https://example.com", "x": 1}),
        ),
        ("desktop.open_path", json!({"path": "/etc/passwd"})),
        ("desktop.open_path", json!(null)),
    ] {
        let result = run(&registry, name, call(&input)).await;
        assert_eq!(code(&result), FailureCode::InvalidInput, "{name} {input}");
    }

    device.desktop.opener = vec!["/bin/false".to_owned()];
    let input = json!({"url": "https://example.com"});
    let result = run(&device.registry(), "desktop.open_url", call(&input)).await;
    assert_eq!(code(&result), FailureCode::CapabilityFailed);
    assert!(Device::new().registry().get("desktop.open_url").is_none());
}

#[tokio::test]
async fn a_file_that_is_swapped_while_it_is_opened_is_not_said_to_have_been() {
    let mut device = Device::new();
    device.desktop.open_path_roots = vec![device.temporary.path().to_owned()];
    device.write("other", "y");
    for (swap, is_opened) in [
        (":", true),
        ("ln -sf other \"$1\"", false),
        ("mv \"$1\" \"$1.old\"; cp \"$1.old\" \"$1\"", false),
        ("rm \"$1\"", false),
    ] {
        let file = fs::canonicalize(device.write("file", "x")).unwrap();
        device.desktop.opener = [SHELL, "-c", swap, "opener"].map(str::to_owned).to_vec();
        let input = json!({ "path": file });
        let result = run(&device.registry(), "desktop.open_path", call(&input)).await;
        if is_opened {
            assert_eq!(result.unwrap(), json!({ "opened": file }));
        } else {
            assert_eq!(code(&result), FailureCode::CapabilityFailed, "{swap}");
        }
        let _ = fs::remove_file(file);
    }
}

/// The blocks of a page that are in one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[tokio::test]
async fn the_documentations_example_runs() {
    let page = include_str!("../../../docs/capabilities.md");
    let (declaration, script) = (blocks(page, "toml")[0], blocks(page, "sh")[0]);
    let (input, output) = (blocks(page, "json")[0], blocks(page, "json")[1]);
    let device = Device::new();
    let program = device.at("program");
    // Copied by another process, so that it is open for writing in none that this one starts.
    let source = device.write("source", script);
    let copy = Command::new("cp").args([&source, &program]).status();
    assert!(soon(copy).await.unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();

    let path = "/usr/local/lib/fairlead/disk-usage";
    assert!(declaration.contains(path));
    let mut text = declaration.replace(path, program.to_str().unwrap());
    // The user of the example is not on every machine.
    text = text.replace("user = ", "# user = ");
    device.write("capabilities.d/disk.toml", &text);
    let input: Value = serde_json::from_str(input).unwrap();
    let answer = run(&device.registry(), "disk.usage", call(&input))
        .await
        .unwrap();
    let expected: Value = serde_json::from_str(output).unwrap();
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&answer), keys(&expected));
    assert!(answer["usedPercent"].as_u64().unwrap() <= 100, "{answer}");
    let result = run(&device.registry(), "disk.usage", call(&json!({}))).await;
    assert_eq!(code(&result), FailureCode::InvalidInput);
}

#[test]
fn the_documentation_has_every_key() {
    let page = include_str!("../../../docs/capabilities.md");
    let device = Device::new();
    device.write(
        "capabilities.d/it.toml",
        "[[capability]]\nno_such_key = 1\n",
    );
    let (_, problems) = device.source().load();
    let message = problems[0].to_string();
    let (_, keys) = message.split_once("expected").unwrap();
    let keys: Vec<_> = keys.split('`').skip(1).step_by(2).collect();
    assert!(keys.len() > 10, "{message}");
    for key in keys {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[tokio::test]
async fn a_person_is_shown_what_there_is_and_what_is_wrong() {
    let device = Device::with("echo 1", "mediation = \"mediated\"");
    let config = device.write(
        "agent.toml",
        &format!(
            "capabilities_dir = \"{}\"\n",
            device.at("capabilities.d").display()
        ),
    );
    let show = || {
        let mut command = Command::new(AGENT);
        command
            .env_clear()
            .arg("--state-dir")
            .arg(device.at("state"));
        command.arg("--config").arg(&config).arg("capabilities");
        soon(async move { command.output().await.unwrap() })
    };
    let output = show().await;
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("test.it"))
        .unwrap();
    assert!(
        line.contains("Mediated") && line.ends_with("available"),
        "{text}"
    );

    device.write("capabilities.d/bad.toml", "[[capability]]\nname = 1\n");
    let output = show().await;
    assert_eq!(output.status.code(), Some(13));
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("test.it")
    );
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("bad.toml:2: ")
    );
    fs::write(&config, "x = 1").unwrap();
    let output = show().await;
    assert_eq!(output.status.code(), Some(13));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("agent.toml:1: ")
    );
}

#[tokio::test]
async fn a_name_is_declared_once() {
    let device = Device::with("echo 1", "");
    device.declare("zz.toml", "test.it", "echo 2", "");
    device.declare("mine.toml", "system.health", "echo 2", "");
    let (registry, problems) = device.source().load();
    assert_eq!(problems.len(), 3, "{problems:?}");
    let output = run(&registry, "test.it", call(&json!(null))).await;
    assert_eq!(output.unwrap(), json!(1));
    let health = run(&registry, "system.health", call(&json!(null))).await;
    assert!(health.unwrap().is_object());
}
