/** A server of the author library that calls an API in the name of whoever calls it: `node shipper.ts --api <url> --otlp <endpoint>`. */
import { refuse, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";
import { exportSpan } from "../fixtures/spans.ts";
import { option } from "../fixtures/stdio-messages.ts";

const ship = tool({
  name: "ship",
  title: "Ship a parcel",
  description: {
    does: "Has a parcel shipped by the API.",
    useWhen: "when a test says so",
    notWhen: "for anything else",
    returns: "what the API said",
    limits: "one parcel",
  },
  input: z.object({ parcel: z.string().max(40).describe("The parcel, e.g. P-1.") }),
  output: z.object({ status: z.int(), said: z.string() }),
  access: "read",
  async handler({ parcel }, { upstreamToken, traceparent: told, signal }) {
    if (told === undefined) refuse("There is no trace.");
    const { traceparent } = await exportSpan(option("otlp"), "ship", 2, told);
    const response = await fetch(option("api") ?? "", {
      method: "POST",
      headers: {
        authorization: `Bearer ${await upstreamToken()}`,
        traceparent,
        "content-type": "application/json",
      },
      body: JSON.stringify({ parcel }),
      signal,
    });
    return { status: response.status, said: await response.text() };
  },
});

export const shipper = server({ name: "shipper", version: "1.0.0", tools: [ship] });

if (import.meta.main) await shipper.stdio();
