/** Where a request comes from: the other end of its connection or, behind proxies that the operator trusts, whoever they say. */
import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";

/** The network address a request came from; empty when its connection is gone. */
export type SourceOf = (request: IncomingMessage) => string;

/**
 * Reads addresses of requests. `trustedProxies`: addresses and CIDR blocks. Only what comes from one of those may say, in
 * `X-Forwarded-For`, for whom it asks. Each proxy adds to the right of that header what it saw itself, so the right-most address
 * that is no trusted proxy is the source; everything to the left of it is what a stranger wrote.
 */
export function sourceBehind(trustedProxies: readonly string[]): SourceOf {
  if (trustedProxies.length === 0) return (request) => plainAddress(request.socket.remoteAddress ?? "");
  const proxies = new BlockList();
  for (const proxy of trustedProxies) {
    const [network = "", bits] = proxy.split("/");
    const family = isIP(network) === 6 ? "ipv6" : "ipv4";
    if (bits === undefined) proxies.addAddress(network, family);
    else proxies.addSubnet(network, Number(bits), family);
  }
  const trusted = (address: string) => proxies.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");

  return (request) => {
    let source = plainAddress(request.socket.remoteAddress ?? "");
    const forwarded = request.headers["x-forwarded-for"];
    if (forwarded === undefined || isIP(source) === 0) return source;
    const hops = String(forwarded).split(",");
    while (trusted(source)) {
      const hop = plainAddress((hops.pop() ?? "").trim());
      // What is no address ("unknown", a name) hides who is behind the proxy that wrote it: that proxy is what we know.
      if (isIP(hop) === 0) return source;
      source = hop;
    }
    return source;
  };
}

/** True for an address or a CIDR block, but not for one that holds every address. */
export function isNetwork(text: string): boolean {
  const [network = "", bits, ...more] = text.split("/");
  const most = { 0: 0, 4: 32, 6: 128 }[isIP(network)] ?? 0;
  if (most === 0 || more.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= most);
}

/**
 * What limits per source count as one: an IPv4 address, or the /64 network of an IPv6 address, since whoever has one address of
 * such a network has all of them.
 */
export function networkOf(address: string): string {
  const plain = plainAddress(address);
  if (isIP(plain) !== 6) return plain;
  const [head = "", tail] = plain.replace(/%.*$/, "").split("::");
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const after = tail === "" ? [] : tail.split(":");
    groups.push(...Array.from({ length: Math.max(0, 8 - groups.length - after.length) }, () => "0"), ...after);
  }
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}

/** An address without the port, brackets and quotes that proxies write around it, and an IPv4 address as such. */
function plainAddress(text: string): string {
  const bare = text.replace(/^"|"$/g, "");
  const address = /^\[([^\]]+)\](?::\d{1,5})?$/.exec(bare)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(bare)?.[1] ?? bare;
  return /^::ffff:([\d.]+)$/i.exec(address)?.[1] ?? address;
}
