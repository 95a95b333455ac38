//! `completions` and `man`: what is read from the command line's own description.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{args::Args, install::PROGRAM_NAME};

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Completions {
    /// Whose they are.
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Manual {
    /// Writes a page for each command into this folder, such as /usr/local/share/man/man1 [default: prints one page].
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// The command that the page is about [default: the program].
    #[arg(value_name = "COMMAND", conflicts_with = "to")]
    pub page: Option<String>,
}

pub(super) fn complete(completions: Completions) -> anyhow::Result<()> {
    print(script(completions.shell)?.as_bytes())
}

pub(super) fn manual(manual: &Manual) -> anyhow::Result<()> {
    match &manual.to {
        Some(folder) => write_pages(folder),
        None => print(&page(manual.page.as_deref())?),
    }
}

fn print(content: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(content) {
        // Who reads a part has had what he wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("print"),
    }
}

fn script(shell: Shell) -> anyhow::Result<String> {
    let mut command = visible(&Args::command());
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, PROGRAM_NAME, &mut script);
    let script = String::from_utf8(script)?;
    // Of a name with a hyphen, clap_complete makes for bash one word where a command is found and another one where it is
    // looked for: below the first word, nothing would be completed.
    Ok(if shell == Shell::Bash {
        script.replace("fairlead__subcmd__agent", "fairlead__agent")
    } else {
        script
    })
}

/// Without what is hidden: the libraries would show it.
fn visible(command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    let shown: Vec<Command> = shown.cloned().collect();
    let mut bare = Command::new(PROGRAM_NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(command.get_arguments().cloned());
    if let Some(about) = command.get_about() {
        bare = bare.about(about.clone());
    }
    if let Some(after) = command.get_after_help() {
        bare = bare.after_help(after.clone());
    }
    bare.subcommands(shown)
}

fn page(name: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let program = visible(&Args::command());
    let about = match name {
        None => program,
        Some(name) => {
            let found = program.get_subcommands().find(|one| one.get_name() == name);
            let found = found.cloned();
            found.ok_or_else(|| super::usage(format!("there is no command {name}: see --help")))?
        }
    };
    let mut page = Vec::new();
    Man::new(about)
        .render(&mut page)
        .context("write the page")?;
    Ok(page)
}

fn write_pages(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    clap_mangen::generate_to(visible(&Args::command()), folder)
        .with_context(|| format!("write pages into {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn shown() -> Vec<String> {
        let program = visible(&Args::command());
        let names = program
            .get_subcommands()
            .map(|one| one.get_name().to_owned());
        names.collect()
    }

    #[test]
    fn every_shell_is_told_of_every_command_that_is_for_people() {
        assert!(shown().len() > 7);
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            for name in shown() {
                assert!(script.contains(&name), "{shell}: {name}");
            }
            assert!(!script.contains("exec-capability"), "{shell}");
            assert!(script.contains("state-dir"), "{shell}");
        }
    }

    #[test]
    fn bash_finds_what_every_command_takes() {
        let script = script(Shell::Bash).unwrap();
        let states: Vec<_> = script
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'))
            .filter(|state| !state.is_empty())
            .collect();
        assert!(states.len() > shown().len(), "{states:?}");
        for state in states {
            assert!(
                script.contains(&format!("\n        {state})\n")),
                "{state} is reached and leads nowhere"
            );
        }
    }

    #[test]
    fn there_is_a_page_for_the_program_and_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("man1");
        write_pages(&pages).unwrap();
        let program = std::fs::read_to_string(pages.join("fairlead-agent.1")).unwrap();
        for name in shown() {
            let dashed = name.replace('-', "\\-");
            assert!(
                program.contains(&format!("fairlead\\-agent\\-{dashed}(1)")),
                "{name}: {program}"
            );
            let page = pages.join(format!("fairlead-agent-{name}.1"));
            assert!(std::fs::read_to_string(page).unwrap().contains("SYNOPSIS"));
            assert!(!self::page(Some(&name)).unwrap().is_empty());
        }
        assert!(program.contains("Exit codes"));
        assert!(!pages.join("fairlead-agent-exec-capability.1").exists());
        page(Some("exec-capability")).unwrap_err();
    }
}
