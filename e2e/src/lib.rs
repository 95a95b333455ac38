//! A real Kubernetes API server on loopback, what is installed into it, and the programs that run against it.
//!
//! Reading order: [`controlplane`] boots etcd and kube-apiserver; [`cluster`] is what everything else asks for
//! (a client, kubeconfigs, kubectl), be it ours or one that somebody already has; [`install`] applies what the
//! checkout ships; [`secret_mount`] plays the kubelet. [`process`], [`ports`], [`wait`] and [`private`] are the
//! floor: children that are never orphaned, ports, deadlines, files for one reader.
//!
//! Nothing here may reach into the programs: they are started as binaries, or spoken to over the wire.

pub mod cluster;
pub mod controlplane;
pub mod install;
pub mod ports;
pub mod private;
pub mod process;
pub mod secret_mount;
pub mod wait;
