//! The same capability on several devices: a bounded number at once, a line for each, and the exit code of the worst.

use crds::CapabilityInvocation;
use futures::{StreamExt as _, stream};
use kube::ResourceExt;

use super::{
    Invoke, Request,
    follow::{Followed, follow},
    outcome::in_a_line,
};
use crate::{
    cluster::Cluster,
    commands::fleet::Member,
    exit::Exit,
    show::{Many, Shown, harmless, note, out},
    terminal::Presses,
};

/// What came of one device.
struct Result {
    device: String,
    exit: Exit,
    /// The phase, or a word in its place.
    word: String,
    /// The object, where one was made.
    invocation: Option<CapabilityInvocation>,
    text: String,
}

impl Invoke {
    pub(super) async fn several(
        &self,
        cluster: &Cluster,
        request: &Request,
        members: &[Member],
        presses: Presses,
        shown: Shown,
    ) -> anyhow::Result<Exit> {
        let width = members.iter().map(|member| member.name.len()).max();
        let width = width.unwrap_or_default();
        let for_programs = shown.for_programs::<CapabilityInvocation>(&[], Many::List)?;
        let results = stream::iter(members)
            .map(|member| self.of_several(cluster, request, member, presses.clone()))
            .buffer_unordered(self.fleet.parallel());
        let mut results = std::pin::pin!(results);
        let (mut worst, mut objects) = (Exit::Done, Vec::new());
        while let Some(result) = results.next().await {
            worst = worst.worse(result.exit);
            let line = line(&result, width);
            // For a program, the lines are beside the result.
            if for_programs.is_some() {
                note(&line);
                objects.extend(result.invocation);
            } else {
                out(&(line + "\n"))?;
            }
        }
        objects.sort_by_key(|object| object.spec.device_ref.name.clone());
        if let Some(text) = shown.for_programs(&objects, Many::List)? {
            out(&text)?;
        }
        Ok(worst)
    }

    async fn of_several(
        &self,
        cluster: &Cluster,
        request: &Request,
        member: &Member,
        presses: Presses,
    ) -> Result {
        let device = member.name.clone();
        let not_made = |exit, text| Result {
            device: device.clone(),
            exit,
            word: "NotMade".to_owned(),
            invocation: None,
            text,
        };
        if presses.number() > 0 {
            return not_made(Exit::Interrupted, "stopped before it was made".to_owned());
        }
        let made = match self.make(cluster, request, member).await {
            Ok(made) => made,
            Err(error) => return not_made(Exit::Failed, format!("{error:#}")),
        };
        let with = |exit, word: &str, text, invocation| Result {
            device: device.clone(),
            exit,
            word: word.to_owned(),
            invocation: Some(invocation),
            text,
        };
        if !self.wait {
            return with(Exit::Done, "Queued", String::new(), made);
        }
        let name = made.name_any();
        let followed = follow(cluster, &name, self.patience(), presses, |_| {}).await;
        match followed {
            Ok(Followed::Ended(ended)) => {
                let status = ended.status.clone().unwrap_or_default();
                let (exit, phase) = (Exit::of(status.phase), status.phase.as_str());
                with(exit, phase, in_a_line(&status), *ended)
            }
            Ok(Followed::Open) => with(Exit::StillOpen, "Open", "it goes on".to_owned(), made),
            Ok(Followed::Left) => with(Exit::Interrupted, "Open", "left alone".to_owned(), made),
            Err(error) => with(Exit::Failed, "Open", format!("{error:#}"), made),
        }
    }
}

/// One line, with columns below those of the other lines.
fn line(result: &Result, width: usize) -> String {
    let name = result.invocation.as_ref().map(ResourceExt::name_any);
    let name = name.unwrap_or_else(|| "-".to_owned());
    let line = format!(
        "{:<width$}   {:<9}   {name:<9}   {}",
        result.device,
        result.word,
        harmless(&result.text)
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_line_whatever_was_answered() {
        let result = Result {
            device: "lamp".to_owned(),
            exit: Exit::Failed,
            word: "NotMade".to_owned(),
            invocation: None,
            text: "no\nway".to_owned(),
        };
        assert_eq!(
            line(&result, 7),
            "lamp      NotMade     -           no\u{fffd}way"
        );
    }
}
