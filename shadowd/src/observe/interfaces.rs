//! Which interface has an address.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The interface of this network namespace that has `address` now; none if none has it, or the
/// kernel does not say.
pub fn interface_of(address: IpAddr) -> Option<String> {
    let mut interfaces = getifaddrs().ok()?;
    let found = interfaces.find(|interface| {
        let Some(own) = &interface.address else {
            return false;
        };
        let v4 = own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        let v6 = || own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip()));
        v4.or_else(v6) == Some(address)
    });
    found.map(|interface| interface.interface_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_on_the_loopback_interface() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert_eq!(interface_of(loopback).as_deref(), Some("lo"));
        let nobodys = "192.0.2.77".parse().unwrap();
        assert_eq!(interface_of(nobodys), None);
    }
}
