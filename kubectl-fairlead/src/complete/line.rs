//! Which kind of word is being typed at the end of a command line. Pure.

use clap::{Arg, Command, CommandFactory as _};

use super::Offer;
use crate::args::Args;

/// The kind of word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// One of these, which no cluster has to be asked for.
    Words(Vec<Offer>),
    Devices,
    /// A capability of this device.
    Capabilities(String),
    /// An invocation that has not ended, or else one with an artifact.
    Invocations {
        open: bool,
    },
    Requests,
    Namespaces,
    Contexts,
    Files,
}

/// A command line that is being typed.
#[derive(Clone, Debug)]
pub struct Typed {
    pub wanted: Wanted,
    /// As much as was typed of the last word.
    pub last: String,
    /// Its flags about the cluster.
    pub cluster: Vec<String>,
}

const NOTHING: Wanted = Wanted::Words(Vec::new());

pub fn read(words: &[String]) -> Typed {
    let mut root = Args::command();
    root.build();
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.clone(), before),
        None => (String::new(), words),
    };
    let mut walk = Walk::new(&root);
    for word in before {
        walk.step(word);
    }
    let (wanted, last) = walk.wanted(last);
    Typed {
        wanted,
        last,
        cluster: walk.cluster,
    }
}

/// What is known after the words before the last one.
struct Walk<'a> {
    command: &'a Command,
    /// The names of the commands on the way.
    path: Vec<&'a str>,
    positionals: Vec<String>,
    /// The flag whose value comes next.
    flag: Option<&'a Arg>,
    by_labels: bool,
    cluster: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Command) -> Self {
        Self {
            command: root,
            path: Vec::new(),
            positionals: Vec::new(),
            flag: None,
            by_labels: false,
            cluster: Vec::new(),
        }
    }

    fn step(&mut self, word: &str) {
        if let Some(flag) = self.flag.take() {
            self.value(flag, word);
        } else if let Some(rest) = word.strip_prefix("--") {
            let (name, value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (rest, None),
            };
            let found = self.arg(|arg| arg.get_long() == Some(name));
            match (found, value) {
                (Some(flag), Some(value)) => self.value(flag, value),
                (Some(flag), None) if takes_value(flag) => self.flag = Some(flag),
                _ => {}
            }
        } else if let Some(rest) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let short = rest.chars().next();
            let found = self.arg(|arg| arg.get_short() == short);
            let value: String = rest.chars().skip(1).collect();
            match found {
                Some(flag) if takes_value(flag) && value.is_empty() => self.flag = Some(flag),
                Some(flag) if takes_value(flag) => {
                    self.value(flag, value.strip_prefix('=').unwrap_or(&value));
                }
                _ => {}
            }
        } else if let Some(found) = self.command.find_subcommand(word) {
            self.command = found;
            self.path.push(found.get_name());
        } else {
            self.positionals.push(word.to_owned());
        }
    }

    fn arg(&self, matches: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| matches(arg))
    }

    fn value(&mut self, flag: &Arg, value: &str) {
        match flag.get_id().as_str() {
            id @ ("kubeconfig" | "context" | "namespace") => {
                self.cluster.push(format!("--{id}={value}"));
            }
            "selector" => self.by_labels = true,
            _ => {}
        }
    }

    /// Also gives the part of the last word that is completed.
    fn wanted(&self, last: String) -> (Wanted, String) {
        if let Some(flag) = self.flag {
            return (self.of_flag(flag), last);
        }
        if let Some(rest) = last.strip_prefix("--")
            && let Some((name, value)) = rest.split_once('=')
        {
            let wanted = self.arg(|arg| arg.get_long() == Some(name));
            let wanted = wanted.map_or(NOTHING, |flag| self.of_flag(flag));
            return (wanted, value.to_owned());
        }
        let wanted = if last.starts_with('-') {
            Wanted::Words(flags(self.command))
        } else if self.command.has_subcommands() {
            let commands = self.command.get_subcommands();
            let shown =
                commands.filter(|command| !command.is_hide_set() && command.get_name() != "help");
            let offers = shown.map(|command| {
                let about = command.get_about().map(ToString::to_string);
                (command.get_name().to_owned(), about.unwrap_or_default())
            });
            Wanted::Words(offers.collect())
        } else {
            self.positional()
        };
        (wanted, last)
    }

    fn of_flag(&self, flag: &Arg) -> Wanted {
        match flag.get_id().as_str() {
            "namespace" => Wanted::Namespaces,
            "context" => Wanted::Contexts,
            "device" => Wanted::Devices,
            "take" => self.capabilities(),
            "file" | "to" | "kubeconfig" | "console_ca" => Wanted::Files,
            _ => possible(flag),
        }
    }

    fn positional(&self) -> Wanted {
        let number = self.positionals.len();
        match (self.path.as_slice(), number) {
            (["describe" | "suspend" | "resume" | "revoke" | "invocations"], 0) => Wanted::Devices,
            (["invoke" | "grant"] | ["who-can", "invoke"], 0) if !self.by_labels => Wanted::Devices,
            (["invoke"] | ["who-can", "invoke"], 1) | (["grant"], _) => self.capabilities(),
            (["approve" | "deny"], 0) => Wanted::Requests,
            (["artifact", "get"], 0) => Wanted::Invocations { open: false },
            (["cancel"], _) => Wanted::Invocations { open: true },
            _ => {
                let positional = self.command.get_positionals().nth(number);
                positional.map_or(NOTHING, possible)
            }
        }
    }

    /// Those of the first device that was named: the others of a fleet declare the same, or the command says so.
    fn capabilities(&self) -> Wanted {
        let first = self.positionals.first().filter(|_| !self.by_labels);
        let device = first.and_then(|names| names.split(',').next());
        device.map_or(NOTHING, |device| Wanted::Capabilities(device.to_owned()))
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn possible(arg: &Arg) -> Wanted {
    let values = arg.get_possible_values().into_iter();
    let offers = values.map(|value| {
        let help = value.get_help().map(ToString::to_string);
        (value.get_name().to_owned(), help.unwrap_or_default())
    });
    Wanted::Words(offers.collect())
}

fn flags(command: &Command) -> Vec<Offer> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown
        .filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string);
            Some((format!("--{}", arg.get_long()?), help.unwrap_or_default()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Typed {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        read(&words)
    }

    fn words(line: &str) -> Vec<String> {
        let wanted = typed(line).wanted;
        let Wanted::Words(offers) = wanted else {
            panic!("{line}: {wanted:?}")
        };
        offers.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn commands_and_flags_are_offered() {
        assert!(words("").contains(&"describe".to_owned()));
        assert!(!words("").contains(&"__complete".to_owned()));
        assert_eq!(words("artifact "), ["get"]);
        let flags = words("-n kitchen invoke lamp --");
        for flag in ["--input", "--timeout", "--namespace", "--selector"] {
            assert!(flags.contains(&flag.to_owned()), "{flag}: {flags:?}");
        }
        assert!(words("devices -o ").contains(&"yaml".to_owned()));
        assert!(words("completions ").contains(&"kubectl".to_owned()));
        assert!(words("doctor ").is_empty());
    }

    #[test]
    fn a_word_is_of_the_kind_that_its_place_takes() {
        for (line, wanted) in [
            ("describe ", Wanted::Devices),
            ("describe --context edge la", Wanted::Devices),
            ("invoke --timeout 5 la", Wanted::Devices),
            ("invoke lamp sys", Wanted::Capabilities("lamp".to_owned())),
            (
                "invoke lamp,kiosk sys",
                Wanted::Capabilities("lamp".to_owned()),
            ),
            ("invoke -l a=b sys", NOTHING),
            ("invoke lamp echo ", NOTHING),
            ("invoke lamp echo -f ", Wanted::Files),
            (
                "grant lamp echo di",
                Wanted::Capabilities("lamp".to_owned()),
            ),
            (
                "grant lamp --take ",
                Wanted::Capabilities("lamp".to_owned()),
            ),
            (
                "who-can invoke lamp ",
                Wanted::Capabilities("lamp".to_owned()),
            ),
            ("approve ", Wanted::Requests),
            ("artifact get ", Wanted::Invocations { open: false }),
            ("cancel inv-1 ", Wanted::Invocations { open: true }),
            ("cancel --device ", Wanted::Devices),
            ("devices -n ", Wanted::Namespaces),
            ("devices --context ", Wanted::Contexts),
            ("devices --namespace=ki", Wanted::Namespaces),
        ] {
            assert_eq!(typed(line).wanted, wanted, "{line}");
        }
        assert_eq!(typed("devices --namespace=ki").last, "ki");
    }

    #[test]
    fn the_cluster_that_was_typed_is_the_one_that_is_asked() {
        assert_eq!(
            typed("-n kitchen describe --context=edge la").cluster,
            ["--namespace=kitchen", "--context=edge"]
        );
        assert_eq!(
            typed("describe -nkitchen la").cluster,
            ["--namespace=kitchen"]
        );
    }
}
