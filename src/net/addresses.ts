/** Which IP addresses are out on the public internet, and which belong to this machine, its network or a special use. */
import { BlockList, isIP } from "node:net";

/** IANA special-purpose registry (RFC 6890 and its updates), multicast and reserved space. */
const SPECIAL_IPV4 = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.31.196.0", 24],
  ["192.52.193.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["192.175.48.0", 24],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
] as const;

/** Within 2000::/3, which is all of IPv6 that is routed publicly; the rest is special by not lying in it. */
const SPECIAL_IPV6 = [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["2620:4f:8000::", 48],
  ["3fff::", 20],
] as const;

const special = new BlockList();
for (const [network, bits] of SPECIAL_IPV4) special.addSubnet(network, bits, "ipv4");
for (const [network, bits] of SPECIAL_IPV6) special.addSubnet(network, bits, "ipv6");
const routedIpv6 = new BlockList();
routedIpv6.addSubnet("2000::", 3, "ipv6");

/**
 * True only for an address that is routed on the public internet. Everything else is not: loopback, private, link-local,
 * CGNAT, multicast, documentation, and IPv6 forms that carry an IPv4 address (mapped, NAT64, 6to4, Teredo).
 */
export function publicAddress(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !special.check(address, "ipv4");
    case 6:
      return routedIpv6.check(address, "ipv6") && !special.check(address, "ipv6");
    default:
      return false;
  }
}
