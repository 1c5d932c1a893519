//! One real node: containerd, runc, kubelet and kube-proxy run the image that `make image` wrote, in real pods.
//!
//! - [`enclosure`]: runs the program again in namespaces and a cgroup of its own, under one first process.
//! - [`Node`]: the cluster inside, with CoreDNS in a pod, and a registry outside of it. [`Images`]: a registry of
//!   images, which it may pull from.
//! - [`scene`]: Twinspan and a shop on it. [`rollouts`]: rolling updates on it, under calls. [`story`]: the frame of
//!   the tests that run on it.
//!
//! The control plane, the registry, and the programs of other frameworks come from `twinspan-testbed`. They run outside
//! of the node's network, as a control plane and servers on virtual machines do; only the node has a network namespace
//! of its own.
//!
//! Errors address the person who runs it, so they are texts with a context (`anyhow`).

pub mod address;
mod cgroup;
mod containerd;
pub mod enclosure;
mod images;
mod kubelet;
mod mounts;
mod network;
mod node;
mod registry;
pub mod rollouts;
pub mod scene;
pub mod story;
mod tools;

pub use images::Source;
pub use node::Node;
pub use registry::{Images, images};
