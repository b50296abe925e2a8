//! The contract between clients, the control plane and the worker agent, generated from `mainloop/v1/*.proto`.

/// Version 1 of the contract.
pub mod v1 {
    #![allow(
        clippy::pedantic,
        clippy::large_enum_variant,
        unreachable_pub,
        missing_docs
    )]
    tonic::include_proto!("mainloop.v1");
}

/// The compiled `FileDescriptorSet`, with comments: what the reflection service serves and the CLI's JSON is made from.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mainloop_descriptor.bin"));
