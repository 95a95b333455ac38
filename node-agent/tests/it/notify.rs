//! Notifications with buttons, on a bus of their own: a desktop that the test plays, and dunst where there is one.

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use proto::node::{Cancel, FailureCode, Outcome, gateway_event::Event as FromGateway};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};
use tokio_stream::StreamExt as _;
use zbus::{Connection, MessageStream, OwnedVariant, connection, message::Type};

use crate::{
    gateway::soon,
    mediation::{Desk, awaits, dispatch, end, me},
    process::terminate,
    skipped::skipped,
};

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";

/// A bus that nobody else uses; `None` where there is no program for one.
struct Bus {
    address: String,
    _daemon: Child,
}

impl Bus {
    async fn start() -> Option<Self> {
        let spawned = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut daemon) = spawned else {
            skipped(
                "notify",
                "there is no dbus-daemon: apt-get install dbus-daemon",
            );
            return None;
        };
        let mut address = String::new();
        let mut output = BufReader::new(daemon.stdout.take().unwrap());
        soon(output.read_line(&mut address)).await.unwrap();
        Some(Self {
            address: address.trim().to_owned(),
            _daemon: daemon,
        })
    }

    async fn connect(&self) -> Connection {
        let builder = connection::Builder::address(self.address.as_str());
        builder.build().await.unwrap()
    }

    /// The companion of a person's session.
    fn notify(&self, desk: &Desk) -> Child {
        let socket = desk.socket();
        let mut command = desk
            .host
            .command(&["notify", "--socket", socket.to_str().unwrap()]);
        command
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        command.spawn().unwrap()
    }
}

/// What a desktop is asked to show, or to take away.
#[derive(Debug)]
enum Asked {
    Show {
        id: u32,
        summary: String,
        body: String,
        actions: Vec<String>,
        hints: HashMap<String, OwnedVariant>,
        expires: i32,
    },
    Close(u32),
}

/// A desktop that shows everything to the test.
struct Desktop {
    connection: Connection,
    asked: mpsc::Receiver<Asked>,
    _tasks: JoinSet<()>,
}

type Notification = (
    String,
    u32,
    String,
    String,
    String,
    Vec<String>,
    HashMap<String, OwnedVariant>,
    i32,
);

impl Desktop {
    async fn start(bus: &Bus) -> Self {
        let connection = bus.connect().await;
        let calls = MessageStream::from(&connection);
        connection.request_name(NAME).await.unwrap();
        let (asks, asked) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(connection.clone(), calls, asks));
        Self {
            connection,
            asked,
            _tasks: tasks,
        }
    }

    async fn next(&mut self) -> Asked {
        soon(self.asked.recv()).await.unwrap()
    }

    async fn press(&self, id: u32, button: &str) {
        press(&self.connection, id, button).await;
    }
}

async fn serve(connection: Connection, mut calls: MessageStream, asks: mpsc::Sender<Asked>) {
    let mut last = 6;
    while let Some(Ok(call)) = calls.next().await {
        let header = call.header();
        if header.message_type() != Type::MethodCall {
            continue;
        }
        match header.member().unwrap().as_str() {
            "GetCapabilities" => {
                let capabilities = ["actions", "body", "body-markup"];
                connection.reply(&header, &&capabilities[..]).await.unwrap();
            }
            "Notify" => {
                last += 1;
                let notification: Notification = call.body().deserialize().unwrap();
                let (_, _, _, summary, body, actions, hints, expires) = notification;
                connection.reply(&header, &last).await.unwrap();
                let shown = Asked::Show {
                    id: last,
                    summary,
                    body,
                    actions,
                    hints,
                    expires,
                };
                asks.send(shown).await.unwrap();
            }
            "CloseNotification" => {
                let (id,): (u32,) = call.body().deserialize().unwrap();
                connection.reply(&header, &()).await.unwrap();
                asks.send(Asked::Close(id)).await.unwrap();
            }
            _ => {}
        }
    }
}

async fn press(connection: &Connection, id: u32, button: &str) {
    let nobody = None::<&str>;
    connection
        .emit_signal(nobody, PATH, NAME, "ActionInvoked", &(id, button))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_button_of_a_notification_answers_for_the_person() {
    let Some(bus) = Bus::start().await else {
        return;
    };
    let mut desktop = Desktop::start(&bus).await;
    let mut desk = Desk::new("").await;
    // It is there before the agent is.
    let notify = bus.notify(&desk);
    let (running, mut stream) = desk.run().await;

    stream.send(dispatch("u1", 0.0, 60_000)).await;
    awaits(&mut stream, "u1").await;
    let Asked::Show {
        id,
        summary,
        body,
        actions,
        hints,
        expires,
    } = desktop.next().await
    else {
        unreachable!("something is shown");
    };
    assert!(summary.contains("test.act"), "{summary}");
    assert!(
        body.contains("jane@example.org") && body.contains("seconds"),
        "{body}"
    );
    assert_eq!(actions, ["allow", "Allow", "deny", "Deny"]);
    assert_eq!((u8::try_from(&hints["urgency"]), expires), (Ok(2), 0));
    assert!(!desk.has_run());
    desktop.press(id, "allow").await;
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Succeeded, None));
    assert_eq!(result.mediation.unwrap().by, me());
    // What is asked no more is taken away.
    assert!(matches!(desktop.next().await, Asked::Close(closed) if closed == id));

    stream.send(dispatch("u2", 0.0, 60_000)).await;
    awaits(&mut stream, "u2").await;
    let Asked::Show { id, .. } = desktop.next().await else {
        unreachable!("something is shown");
    };
    // Somebody else on the bus, and buttons that there are not, press nothing.
    press(&bus.connect().await, id, "allow").await;
    desktop.press(id, "default").await;
    desktop.press(id + 1, "allow").await;
    desktop.press(id, "deny").await;
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Refused, Some(FailureCode::Refused)));
    assert!(matches!(desktop.next().await, Asked::Close(closed) if closed == id));

    stream.send(dispatch("u3", 0.0, 60_000)).await;
    awaits(&mut stream, "u3").await;
    let Asked::Show { id, .. } = desktop.next().await else {
        unreachable!("something is shown");
    };
    let cancel = Cancel {
        uid: "u3".to_owned(),
        name: "act-u3".to_owned(),
    };
    stream.send(FromGateway::Cancel(cancel)).await;
    assert!(matches!(desktop.next().await, Asked::Close(closed) if closed == id));
    assert!(terminate(notify).await.success());
    assert!(terminate(running).await.success());
}

/// A screen that nobody looks at, and a notification daemon that people use; `None` where they are not installed.
async fn dunst(bus: &Bus, desk: &Desk) -> Option<(Child, Child)> {
    let quiet = |program: &str| {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    };
    let missing = "there is no dunst, or no Xvfb: apt-get install dunst xvfb";
    let mut screen = quiet("Xvfb");
    screen.args([
        "-displayfd",
        "1",
        "-nolisten",
        "tcp",
        "-screen",
        "0",
        "640x480x24",
    ]);
    let Ok(mut screen) = screen.stdout(Stdio::piped()).spawn() else {
        skipped("a notification daemon that people use", missing);
        return None;
    };
    let mut display = String::new();
    let mut output = BufReader::new(screen.stdout.take().unwrap());
    soon(output.read_line(&mut display)).await.unwrap();
    // What it asks which action a person wants: this one always presses Allow.
    let menu = desk.at("menu");
    fs::write(&menu, "#!/bin/sh\ngrep -m 1 Allow\n").unwrap();
    fs::set_permissions(&menu, fs::Permissions::from_mode(0o700)).unwrap();
    let settings = desk.at("dunstrc");
    fs::write(&settings, format!("[global]\ndmenu = {}\n", menu.display())).unwrap();
    let daemon = quiet("dunst")
        .arg("-conf")
        .arg(&settings)
        .env("DISPLAY", format!(":{}", display.trim()))
        .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
        .stdout(Stdio::null())
        .spawn();
    let Ok(daemon) = daemon else {
        skipped("a notification daemon that people use", missing);
        return None;
    };
    Some((screen, daemon))
}

#[tokio::test]
async fn a_button_works_in_a_notification_daemon_that_people_use() {
    const DUNST: &str = "org.dunstproject.cmd0";
    const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
    let Some(bus) = Bus::start().await else {
        return;
    };
    let mut desk = Desk::new("").await;
    let Some(_daemons) = dunst(&bus, &desk).await else {
        return;
    };
    let person = bus.connect().await;
    let shows = async || -> u32 {
        let length = (DUNST, "displayedLength");
        let got = person.call_method(Some(NAME), PATH, Some(PROPERTIES), "Get", &length);
        let Ok(got) = got.await else { return 0 };
        let value: OwnedVariant = got.body().deserialize().unwrap();
        u32::try_from(value).unwrap()
    };
    // Until it has its name.
    soon(async {
        let has = || person.call_method(Some(NAME), PATH, Some(NAME), "GetCapabilities", &());
        while has().await.is_err() {
            sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let (running, mut stream) = desk.run().await;
    let notify = bus.notify(&desk);
    stream.send(dispatch("u1", 0.0, 60_000)).await;
    awaits(&mut stream, "u1").await;
    soon(async {
        while shows().await == 0 {
            sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(!desk.has_run());
    let menu = person.call_method(Some(NAME), PATH, Some(DUNST), "ContextMenuCall", &());
    soon(menu).await.unwrap();
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Succeeded, None));
    assert_eq!(result.mediation.unwrap().by, me());
    soon(async {
        while shows().await > 0 {
            sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(terminate(notify).await.success());
    assert!(terminate(running).await.success());
}
