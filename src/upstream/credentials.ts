/** The credentials that requests to an upstream carry: the caller's for what is done for the caller, ours for all the rest. */
import type { Authenticated, UpstreamCredential } from "../core/call.ts";

/**
 * Where they come from. Both reject with a `DrawbridgeError` when there is none, and then nothing is sent: no call ever
 * goes with ours in place of the caller's. `refused` is a credential that the server has just turned away; another one is wanted.
 */
export interface UpstreamCredentials {
  /** Acts for the caller. */
  for(by: Authenticated, signal: AbortSignal, refused?: UpstreamCredential): Promise<UpstreamCredential>;
  /** Our own, for what is asked on nobody's behalf: who the server is, what it lists, the end of an unused session. */
  own(signal: AbortSignal, refused?: UpstreamCredential): Promise<UpstreamCredential>;
}

/** The credentials of one party, the caller or ourselves; undefined at an upstream that needs none. */
export type CredentialSource =
  | ((signal: AbortSignal, refused?: UpstreamCredential) => Promise<UpstreamCredential>)
  | undefined;
