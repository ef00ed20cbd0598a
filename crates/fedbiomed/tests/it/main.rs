//! The whole product from outside: real processes, real sockets on the loopback, real data.

mod certificates;
mod commands;
mod demo;
mod direct;
mod encrypted;
mod exact;
mod kill;
mod masks;
mod refusals;
mod secagg;
mod sockets;
mod stats;
mod tutorial;
mod world;
