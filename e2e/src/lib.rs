//! A real Kubernetes API server on loopback, what is installed into it, and the programs that run against it.
//!
//! Reading order: [`controlplane`] boots etcd and kube-apiserver; [`cluster`] is what everything else asks for
//! (a client, kubeconfigs, kubectl), be it ours or one that somebody already has; [`install`] applies what the
//! checkout ships; [`secret_mount`] plays the kubelet; [`stack`] runs our programs on all that; [`demo`] tells their
//! story to a person, with the figures of [`measure`] and their [`floor`]; [`stranger`] is a peer that need not play by the
//! rules, [`hang_up`] hears how its connection ends, [`authority`] gives it certificates, [`approval`] a code
//! and somebody who approves; [`live_console`] is for what asks a console from outside; [`figures`] measures many
//! devices, [`faults`] does to programs what happens to programs, and [`simulation`] to all of what decides in them, in
//! one thread.
//! [`capabilities`] writes down what an agent is to run.
//! [`process`], [`ports`], [`wait`], [`admin`] and [`private`] are the ground: children that are never orphaned, ports, deadlines, questions to admin
//! ports, files for one reader.
//!
//! Nothing else here may reach into the programs: they are started as binaries, or spoken to over the wire.

pub mod admin;
pub mod approval;
pub mod authority;
pub mod capabilities;
pub mod cluster;
pub mod controlplane;
pub mod demo;
pub mod faults;
pub mod figures;
pub mod floor;
pub mod hang_up;
pub mod install;
pub mod live_console;
pub mod measure;
pub mod ports;
pub mod private;
pub mod process;
pub mod secret_mount;
pub mod simulation;
pub mod stack;
pub mod stranger;
pub mod wait;
