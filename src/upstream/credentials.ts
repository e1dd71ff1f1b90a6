/** The credentials that requests to an upstream carry: the caller's for what is done for the caller, ours for all the rest. */
import type { IncomingHttpHeaders } from "node:http";
import type { Authenticated, UpstreamCredential } from "../core/call.ts";
import type { DrawbridgeError } from "../core/errors.ts";

/**
 * Where they come from. Both reject with a `DrawbridgeError` when there is none, and then nothing is sent: no call ever
 * goes with ours in place of the caller's. `refused` is a credential that the server has just turned away; another one is wanted,
 * and the same object means that there is none. `said`: the headers of that answer.
 */
export interface UpstreamCredentials {
  /** Acts for the caller. */
  for(
    by: Authenticated,
    signal: AbortSignal,
    refused?: UpstreamCredential,
    said?: IncomingHttpHeaders,
  ): Promise<UpstreamCredential>;
  /**
   * Our own, for what is asked on nobody's behalf: who the server is, what it lists, the end of an unused session. Undefined at a
   * server that answers that without any.
   */
  own(
    signal: AbortSignal,
    refused?: UpstreamCredential,
    said?: IncomingHttpHeaders,
  ): Promise<UpstreamCredential | undefined>;
  /**
   * What the caller is told when the server answers 403 with this `WWW-Authenticate`, where something can be done about it;
   * undefined: the call has failed.
   */
  lacks?(by: Authenticated, challenge: string | undefined): Promise<DrawbridgeError | undefined>;
}

/** The credentials of one party, the caller or ourselves; undefined at an upstream that needs none. */
export type CredentialSource =
  | ((
      signal: AbortSignal,
      refused?: UpstreamCredential,
      said?: IncomingHttpHeaders,
    ) => Promise<UpstreamCredential | undefined>)
  | undefined;
