//! What an administrator writes about a command, and the checks that turn it into a [`Declaration`].
//!
//! Pure: what of the machine matters is in [`Surroundings`].

use std::{path::PathBuf, time::Duration};

use proto::{MAX_TIMEOUT_SECONDS, node::Execution};
use serde::Deserialize;
use serde_json::Value;
use surface::{Schema, is_deceptive};
use toml::Spanned;

use super::{
    account::{Account, Accounts},
    argument::Argument,
};
use crate::{
    agent::order::MAX_OUTPUT_BYTES,
    capability::terms::{MAX_VERSION_BYTES, Terms},
    config::document::{Document, Place, Problem},
};

/// Names and first words of names that belong to the agent.
const RESERVED: [&str; 4] = ["echo", "system", "desktop", "fairlead"];
/// Environment variables that are the agent's: a pairing code may be among them.
const RESERVED_VARIABLES: &str = "FAIRLEAD_";
const MAX_NAME_BYTES: usize = 63;
const MAX_DESCRIPTION_CHARACTERS: usize = 256;
const MAX_ARGUMENTS: usize = 128;
const MAX_VARIABLES: usize = 64;
/// The dynamic linker of a bigger program does not start in less.
const MIN_MEMORY_BYTES: i64 = 16 * 1024 * 1024;
const MAX_GRACE_SECONDS: i64 = 30;
/// Less than what a command has at an invocation's deadline, whatever its grace: one that is left alone has all of it then.
const DEFAULT_GRACE: Duration = Duration::from_secs(3);
/// What is more than an answer can carry goes to a file, and from there to the store of the gateways.
const MOST_OUTPUT_BYTES: i64 = 64 * 1024 * 1024 * 1024;
const MAX_CONCURRENCY: i64 = 64;
const MAX_PROCESSES: i64 = 65_536;
/// What a program and its libraries need; and what a machine can be asked for.
const MIN_OPEN_FILES: i64 = 16;
const MAX_OPEN_FILES: i64 = 1_048_576;
const OPEN_FILES: u64 = 1024;
/// Room for a log and for most backups, and an end to what fills a disk by mistake.
const FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// A command that can be asked for, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Declaration {
    pub name: String,
    /// For people.
    pub description: String,
    /// Absolute.
    pub program: PathBuf,
    /// Where that is written, for what turns out to be wrong later.
    pub program_at: Place,
    pub arguments: Vec<Argument>,
    /// `None`: that of the agent.
    pub account: Option<Account>,
    /// Variables of the agent's environment that are passed on, where they are set.
    pub environment: Vec<String>,
    /// Absolute.
    pub working_directory: PathBuf,
    /// How long a run may take, whatever the invocation allows.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL; four seconds past the invocation's deadline it ends all the same.
    pub grace: Duration,
    /// Bound on the memory of all of its processes together where there are control groups, and else on the private
    /// memory that each of them may write to.
    pub memory_bytes: Option<u64>,
    /// Bound on the address space of each of its processes.
    pub address_space_bytes: Option<u64>,
    /// Processes and threads at once: of its user, where it has one of its own; of a run, where there are control groups.
    pub max_processes: Option<u64>,
    /// Files that each of its processes has open.
    pub max_open_files: u64,
    /// Of each file that it writes.
    pub max_file_bytes: u64,
    /// Of all that it writes, to be told or stored.
    pub max_output_bytes: u64,
    /// Runs at once.
    pub concurrency: usize,
    pub execution: Execution,
    pub terms: Terms,
}

/// What of the machine a declaration is checked against.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Whether commands can be run as other users.
    pub is_root: bool,
    pub accounts: Accounts,
}

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    capability: Vec<WrittenCapability>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCapability {
    name: Spanned<String>,
    description: Option<Spanned<String>>,
    version: Option<Spanned<String>>,
    /// A table, or JSON in a string.
    input_schema: Option<Spanned<Value>>,
    output_schema: Option<Spanned<Value>>,
    default_timeout_seconds: Option<Spanned<i64>>,
    command: Spanned<PathBuf>,
    #[serde(default)]
    args: Vec<Spanned<String>>,
    user: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
    #[serde(default)]
    env: Vec<Spanned<String>>,
    working_directory: Option<Spanned<PathBuf>>,
    timeout_seconds: Option<Spanned<i64>>,
    grace_seconds: Option<Spanned<i64>>,
    memory_bytes: Option<Spanned<i64>>,
    address_space_bytes: Option<Spanned<i64>>,
    max_processes: Option<Spanned<i64>>,
    max_open_files: Option<Spanned<i64>>,
    max_file_bytes: Option<Spanned<i64>>,
    max_output_bytes: Option<Spanned<i64>>,
    concurrency: Option<Spanned<i64>>,
    #[serde(default)]
    mediation: WrittenMediation,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenMediation {
    #[default]
    Automatic,
    Mediated,
}

/// Reads what a file declares: all of it, or everything that is wrong with it.
pub fn read(
    document: &Document,
    surroundings: &Surroundings,
) -> Result<Vec<Declaration>, Vec<Problem>> {
    let written: Written = document.parse().map_err(|problem| vec![problem])?;
    let mut declarations: Vec<Declaration> = Vec::new();
    let mut problems = Vec::new();
    for capability in written.capability {
        let span = capability.name.span();
        match Reader(document).declaration(capability, surroundings) {
            Ok(declaration)
                if declarations
                    .iter()
                    .any(|other| other.name == declaration.name) =>
            {
                let message = format!("{} is declared twice in this file", declaration.name);
                problems.push(document.problem(&span, "name", message));
            }
            Ok(declaration) => declarations.push(declaration),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(declarations)
    } else {
        Err(problems)
    }
}

struct Reader<'a>(&'a Document);

impl Reader<'_> {
    fn declaration(
        &self,
        written: WrittenCapability,
        surroundings: &Surroundings,
    ) -> Result<Declaration, Problem> {
        let WrittenCapability {
            name,
            description,
            version,
            input_schema,
            output_schema,
            default_timeout_seconds,
            command,
            args,
            user,
            group,
            env,
            working_directory,
            timeout_seconds,
            grace_seconds,
            memory_bytes,
            address_space_bytes,
            max_processes,
            max_open_files,
            max_file_bytes,
            max_output_bytes,
            concurrency,
            mediation,
        } = written;
        self.check("name", &name, |name| judge_name(name))?;
        if let Some(description) = &description {
            self.check("description", description, |text| judge_description(text))?;
        }
        if let Some(version) = &version {
            self.check("version", version, |text| judge_version(text))?;
        }
        self.check("command", &command, |path| judge_path(path))?;
        if let Some(folder) = &working_directory {
            self.check("working_directory", folder, |path| judge_path(path))?;
        }
        let at_most = |key, value, min, max| self.number(key, value, min, max);
        let seconds = |number: u64| Duration::from_secs(number);
        let longest = MAX_TIMEOUT_SECONDS.into();
        let timeout = at_most("timeout_seconds", timeout_seconds, 1, longest)?;
        let default_timeout = default_timeout_seconds;
        let default_timeout = at_most("default_timeout_seconds", default_timeout, 1, longest)?;
        let whole = |seconds: Option<u64>| {
            seconds
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or_default()
        };
        Ok(Declaration {
            terms: Terms {
                version: version.map(Spanned::into_inner).unwrap_or_default(),
                input: self.schema("input_schema", input_schema)?,
                output: self.schema("output_schema", output_schema)?,
                default_timeout_seconds: whole(default_timeout),
                max_timeout_seconds: whole(timeout),
            },
            arguments: self.arguments(&args)?,
            account: self.account(user, group, surroundings)?,
            environment: self.variables(env)?,
            timeout: timeout.map(seconds),
            grace: at_most("grace_seconds", grace_seconds, 0, MAX_GRACE_SECONDS)?
                .map_or(DEFAULT_GRACE, seconds),
            memory_bytes: at_most("memory_bytes", memory_bytes, MIN_MEMORY_BYTES, i64::MAX)?,
            address_space_bytes: at_most(
                "address_space_bytes",
                address_space_bytes,
                MIN_MEMORY_BYTES,
                i64::MAX,
            )?,
            max_processes: at_most("max_processes", max_processes, 1, MAX_PROCESSES)?,
            max_open_files: at_most(
                "max_open_files",
                max_open_files,
                MIN_OPEN_FILES,
                MAX_OPEN_FILES,
            )?
            .unwrap_or(OPEN_FILES),
            max_file_bytes: at_most("max_file_bytes", max_file_bytes, 0, i64::MAX)?
                .unwrap_or(FILE_BYTES),
            max_output_bytes: at_most("max_output_bytes", max_output_bytes, 1, MOST_OUTPUT_BYTES)?
                .unwrap_or(MAX_OUTPUT_BYTES as u64),
            concurrency: at_most("concurrency", concurrency, 1, MAX_CONCURRENCY)?
                .and_then(|runs| usize::try_from(runs).ok())
                .unwrap_or(1),
            name: name.into_inner(),
            description: description.map(Spanned::into_inner).unwrap_or_default(),
            program_at: self.0.place(&command.span()),
            program: command.into_inner(),
            working_directory: working_directory
                .map_or_else(|| PathBuf::from("/"), Spanned::into_inner),
            execution: match mediation {
                WrittenMediation::Automatic => Execution::Automatic,
                WrittenMediation::Mediated => Execution::Mediated,
            },
        })
    }

    fn check<T>(
        &self,
        key: &str,
        value: &Spanned<T>,
        judge: impl FnOnce(&T) -> Result<(), String>,
    ) -> Result<(), Problem> {
        judge(value.get_ref()).map_err(|message| self.0.problem(&value.span(), key, message))
    }

    fn number(
        &self,
        key: &str,
        value: Option<Spanned<i64>>,
        min: i64,
        max: i64,
    ) -> Result<Option<u64>, Problem> {
        let Some(value) = value else {
            return Ok(None);
        };
        self.check(key, &value, |number| {
            if (min..=max).contains(number) {
                Ok(())
            } else if max == i64::MAX {
                Err(format!("give a number, {min} or more"))
            } else {
                Err(format!("give a number from {min} to {max}"))
            }
        })?;
        Ok(u64::try_from(value.into_inner()).ok())
    }

    fn schema(&self, key: &str, value: Option<Spanned<Value>>) -> Result<Option<Schema>, Problem> {
        let Some(value) = value else {
            return Ok(None);
        };
        let written = value.get_ref();
        let text = written
            .as_str()
            .map_or_else(|| written.to_string(), str::to_owned);
        let schema = Schema::parse(text.as_bytes());
        schema
            .map(Some)
            .map_err(|invalid| self.0.problem(&value.span(), key, invalid))
    }

    fn arguments(&self, args: &[Spanned<String>]) -> Result<Vec<Argument>, Problem> {
        if let Some(last) = args.get(MAX_ARGUMENTS) {
            let message = format!("give {MAX_ARGUMENTS} at most");
            return Err(self.0.problem(&last.span(), "args", message));
        }
        let arguments = args.iter().map(|argument| {
            Argument::parse(argument.get_ref())
                .map_err(|message| self.0.problem(&argument.span(), "args", message))
        });
        arguments.collect()
    }

    fn variables(&self, names: Vec<Spanned<String>>) -> Result<Vec<String>, Problem> {
        if let Some(last) = names.get(MAX_VARIABLES) {
            let message = format!("give {MAX_VARIABLES} at most");
            return Err(self.0.problem(&last.span(), "env", message));
        }
        let names = names.into_iter().map(|name| {
            self.check("env", &name, |name| judge_variable(name))?;
            Ok(name.into_inner())
        });
        names.collect()
    }

    fn account(
        &self,
        user: Option<Spanned<String>>,
        group: Option<Spanned<String>>,
        surroundings: &Surroundings,
    ) -> Result<Option<Account>, Problem> {
        let Some(user) = user else {
            return match group {
                None => Ok(None),
                Some(group) => Err(self.0.problem(
                    &group.span(),
                    "group",
                    "say which user, too: give a user beside it",
                )),
            };
        };
        if !surroundings.is_root {
            return Err(self.0.problem(
                &user.span(),
                "user",
                "only an agent that runs as root can run a command as another user: run it as root, or leave this out",
            ));
        }
        let group = group.map(Spanned::into_inner);
        surroundings
            .accounts
            .find(user.get_ref(), group.as_deref())
            .map(Some)
            .map_err(|message| self.0.problem(&user.span(), "user and group", message))
    }
}

/// The rule of the resource: dotted lower-case words.
fn judge_name(name: &str) -> Result<(), String> {
    let word = |word: &str| {
        let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        word.starts_with(end)
            && word.ends_with(end)
            && word.chars().all(|c| end(c) || matches!(c, '-' | '_'))
    };
    if name.len() > MAX_NAME_BYTES || !name.split('.').all(word) {
        return Err(format!(
            "{name:?} is no name: give lower-case words of letters, digits, - and _, separated by dots, {MAX_NAME_BYTES} characters at most"
        ));
    }
    let first = name.split('.').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return Err(format!(
            "names that begin with {first} are the agent's own: choose another"
        ));
    }
    Ok(())
}

fn judge_description(text: &str) -> Result<(), String> {
    if text.chars().count() > MAX_DESCRIPTION_CHARACTERS || text.chars().any(is_deceptive) {
        return Err(format!(
            "give one line of {MAX_DESCRIPTION_CHARACTERS} characters at most"
        ));
    }
    Ok(())
}

fn judge_version(text: &str) -> Result<(), String> {
    if text.len() > MAX_VERSION_BYTES || text.chars().any(is_deceptive) {
        return Err(format!("give {MAX_VERSION_BYTES} characters at most"));
    }
    Ok(())
}

fn judge_path(path: &std::path::Path) -> Result<(), String> {
    if !path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("give a path that begins with /: no PATH is searched".to_owned());
    }
    Ok(())
}

fn judge_variable(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(format!(
            "{name:?} is no name of a variable: give names alone, such as \"LANG\""
        ));
    }
    if name.starts_with(RESERVED_VARIABLES) {
        return Err(format!(
            "{name} is the agent's own and is not passed on: leave it out"
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;

    pub(in super::super) fn declared(text: &str) -> Result<Vec<Declaration>, Vec<Problem>> {
        let document = Document::of(Path::new("a.toml"), text.to_owned());
        let surroundings = Surroundings {
            is_root: true,
            accounts: Accounts::default(),
        };
        read(&document, &surroundings)
    }

    const MINIMAL: &str = "[[capability]]\nname = \"disk.usage\"\ncommand = \"/bin/df\"\n";

    #[test]
    fn what_is_left_out_has_a_safe_default() {
        let declarations = declared(MINIMAL).unwrap();
        assert_eq!(
            declarations,
            [Declaration {
                name: "disk.usage".to_owned(),
                description: String::new(),
                program: PathBuf::from("/bin/df"),
                program_at: Place {
                    path: PathBuf::from("a.toml"),
                    line: 3,
                },
                arguments: Vec::new(),
                account: None,
                environment: Vec::new(),
                working_directory: PathBuf::from("/"),
                timeout: None,
                grace: Duration::from_secs(3),
                memory_bytes: None,
                address_space_bytes: None,
                max_processes: None,
                max_open_files: 1024,
                max_file_bytes: 4 << 30,
                max_output_bytes: 256 * 1024,
                concurrency: 1,
                execution: Execution::Automatic,
                terms: Terms::default(),
            }]
        );
        assert_eq!(declared("").unwrap(), []);
    }

    const EXAMPLE: &str = include_str!("../../../capability.example.toml");

    /// The example with every key set.
    fn example() -> String {
        let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
        let keys = lines.filter(|line| !line.starts_with(' ') && !line.is_empty());
        keys.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_declares_nothing_as_it_comes_and_has_every_key_and_default() {
        assert_eq!(declared(EXAMPLE).unwrap(), []);
        let text = example();
        let surroundings = Surroundings {
            is_root: true,
            accounts: Accounts::of("nobody:x:65534:65534::/:/bin/false\n", "nogroup:x:65533:\n"),
        };
        let document = Document::of(Path::new("a.toml"), text.clone());
        let [read] = &read(&document, &surroundings).unwrap()[..] else {
            unreachable!("one is declared");
        };
        let left_out = &declared(MINIMAL).unwrap()[0];
        assert_eq!(
            (&read.working_directory, read.grace, read.concurrency),
            (
                &left_out.working_directory,
                left_out.grace,
                left_out.concurrency
            )
        );
        assert_eq!(
            (
                read.max_open_files,
                read.max_file_bytes,
                read.max_output_bytes
            ),
            (
                left_out.max_open_files,
                left_out.max_file_bytes,
                left_out.max_output_bytes
            )
        );
        assert_eq!(read.execution, left_out.execution);

        let problems = declared("[[capability]]\nno_such_key = 1\n").unwrap_err();
        let (_, keys) = problems[0].message.split_once("expected").unwrap();
        let keys: Vec<_> = keys.split('`').skip(1).step_by(2).collect();
        assert!(keys.len() > 15, "{keys:?}");
        for key in keys {
            let is_set = |line: &str| line.starts_with(&format!("{key} = "));
            assert!(text.lines().any(is_set), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (line, says) in [
            ("args = [\"-x={input.a}\"]", "args: "),
            ("args = [\"x\",\n \"{input.}\"]", "args: "),
            ("user = \"nobody-here\"", "/etc/passwd"),
            ("group = \"0\"", "give a user"),
            ("env = [\"A=b\"]", "env: "),
            ("env = [\"FAIRLEAD_CODE\"]", "agent's own"),
            ("working_directory = \"here\"", "working_directory: "),
            (
                "timeout_seconds = 0",
                "timeout_seconds: give a number from 1 to 3600",
            ),
            ("grace_seconds = 31", "grace_seconds: "),
            (
                "memory_bytes = 1",
                "memory_bytes: give a number, 16777216 or more",
            ),
            ("max_output_bytes = 68719476737", "max_output_bytes: "),
            ("max_processes = 0", "max_processes: "),
            (
                "max_open_files = 15",
                "max_open_files: give a number from 16 to 1048576",
            ),
            (
                "max_file_bytes = -1",
                "max_file_bytes: give a number, 0 or more",
            ),
            ("concurrency = 0", "concurrency: "),
            ("mediation = \"none\"", "mediation"),
            ("description = \"a\\nb\"", "description: "),
            (
                "version = \"012345678901234567890123456789012\"",
                "version: ",
            ),
            ("default_timeout_seconds = 0", "default_timeout_seconds: "),
            (
                "input_schema = { type = \"objekt\" }",
                "input_schema: at /type: ",
            ),
            ("output_schema = \"{\"", "output_schema: it is no JSON"),
            ("input_schema = { requried = [\"a\"] }", "/requried"),
            ("shell = true", "shell"),
        ] {
            let problems = declared(&format!("{MINIMAL}{line}\n")).unwrap_err();
            let [problem] = &problems[..] else {
                unreachable!("one thing is wrong: {problems:?}");
            };
            let expected = 3 + line.lines().count();
            assert_eq!(problem.line, Some(expected), "{line}: {problem}");
            assert!(problem.message.contains(says), "{line}: {problem}");
        }
    }

    #[test]
    fn a_schema_is_a_table_or_json_in_a_string() {
        let table = "timeout_seconds = 7\nversion = \"2\"\n[capability.input_schema]\ntype = \"object\"\nrequired = [\"folder\"]\n\
                     [capability.input_schema.properties]\nfolder = { type = \"string\", maxLength = 100 }\n";
        let json = "timeout_seconds = 7\nversion = \"2\"\ninput_schema = '{\"type\":\"object\",\"required\":[\"folder\"],\
                    \"properties\":{\"folder\":{\"type\":\"string\",\"maxLength\":100}}}'\n";
        let terms = |text| {
            declared(&format!("{MINIMAL}{text}")).unwrap()[0]
                .terms
                .clone()
        };
        assert_eq!(terms(table), terms(json));
        let terms = terms(table);
        assert_eq!(
            (terms.version.as_str(), terms.max_timeout_seconds),
            ("2", 7)
        );
        assert!(terms.takes(br#"{"folder":"/var"}"#).is_ok());
        assert!(terms.takes(br#"{"folder":7}"#).is_err());
    }

    #[test]
    fn names_follow_the_rule_of_the_resource_and_leave_the_agents_alone() {
        for name in ["a", "disk.usage", "a-b_c.d0", &"x".repeat(63)] {
            judge_name(name).unwrap();
        }
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a b",
            "A",
            "ä",
            "echo",
            "system.health",
            "system.x",
            "desktop.y",
            &"x".repeat(64),
        ] {
            assert!(judge_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let text = "[[capability]]\nname = \"A\"\ncommand = \"/x\"\n\
                    [[capability]]\nname = \"b\"\ncommand = \"x\"\n\
                    [[capability]]\nname = \"c\"\ncommand = \"/x\"\n\
                    [[capability]]\nname = \"c\"\ncommand = \"/y\"\n";
        let problems = declared(text).unwrap_err();
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(2), Some(6), Some(11)], "{problems:?}");
        assert!(problems[2].message.contains("twice"));
    }
}
