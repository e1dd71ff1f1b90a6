/**
 * The purchase orders of the household goods shop, as an MCP server over HTTP that many people use: each has their own orders.
 *
 *     node examples/orders/api/server.ts
 *
 * It listens on 127.0.0.1:7340 ($PORT) and believes nobody but Drawbridge at http://127.0.0.1:7337 ($ISSUER): a token must be made
 * for this API, and says who asks. No tool takes a name for that. Orders are kept in memory.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { localhostHostValidation, type NodeIncomingMessageLike, toNodeHandler } from "@modelcontextprotocol/node";
import {
  type AuthInfo,
  bearerAuthChallengeResponse,
  createMcpHandler,
  McpServer,
  OAuthError,
  OAuthErrorCode,
  requireScopes,
  verifyBearerToken,
} from "@modelcontextprotocol/server";
import { z } from "zod";
import { generateDesk } from "../data.ts";
import { type Caller, isAboutToken, tokensFor } from "./verify.ts";

interface PurchaseOrder {
  readonly id: string;
  readonly sku: string;
  readonly quantity: number;
  readonly reason: string;
  readonly status: "placed" | "cancelled";
}

const port = Number(process.env["PORT"] ?? 7340);
const issuer = process.env["ISSUER"] ?? "http://127.0.0.1:7337";
const resource = `http://127.0.0.1:${port}/mcp`;
const metadataPath = "/.well-known/oauth-protected-resource/mcp";
const resourceMetadataUrl = `http://127.0.0.1:${port}${metadataPath}`;

const LOW_STOCK = 40;
const MAX_ORDERS_EACH = 50;
const MAX_BUYERS = 1_000;
const { products } = generateDesk();
/** By `sub`. */
const ordersOf = new Map<string, PurchaseOrder[]>();
let lastNumber = 5_000;

function createMcpServer(): McpServer {
  const server = new McpServer(
    { name: "purchase-orders", title: "Purchase orders", version: "1.0.0" },
    { instructions: "Finds what runs low and orders it from the supplier, in the name of whoever asks." },
  );
  const reads = requireScopes("purchases:read");
  const writes = requireScopes("purchases:write");

  server.registerTool(
    "find_low_stock",
    {
      title: "Find what runs low",
      description: "Products of which few are left and none are on order yet, the scarcest first.",
      inputSchema: z.strictObject({}),
      annotations: { readOnlyHint: true, openWorldHint: false },
      scopeChallenge: reads,
    },
    (_args, context) => {
      callerOf(context.http?.authInfo);
      const ordered = new Set(
        [...ordersOf.values()]
          .flat()
          .filter(placed)
          .map(({ sku }) => sku),
      );
      const scarce = products.filter(({ sku, stock }) => stock < LOW_STOCK && !ordered.has(sku));
      const low = scarce.toSorted((a, b) => a.stock - b.stock).map(({ sku, name, stock }) => ({ sku, name, stock }));
      return answer({ products: low });
    },
  );

  server.registerTool(
    "place_purchase_order",
    {
      title: "Order from the supplier",
      description: "Orders a product from its supplier in your name. Use it after find_low_stock; the shop pays.",
      inputSchema: z.strictObject({
        sku: z.string().regex(/^[A-Z]{3}-[0-9]{2}$/),
        quantity: z.int().min(1).max(500),
        reason: z.string().min(1).max(200),
      }),
      annotations: { readOnlyHint: false, destructiveHint: false, openWorldHint: true },
      scopeChallenge: writes,
    },
    ({ sku, quantity, reason }, context) => {
      const { subject } = callerOf(context.http?.authInfo);
      const mine = ordersOf.get(subject) ?? [];
      if (!products.some((product) => product.sku === sku)) throw new Error(`There is no product ${sku}.`);
      if (mine.length >= MAX_ORDERS_EACH || (mine.length === 0 && ordersOf.size >= MAX_BUYERS))
        throw new Error("There are too many purchase orders already.");
      const order: PurchaseOrder = { id: `PO-${++lastNumber}`, sku, quantity, reason, status: "placed" };
      ordersOf.set(subject, [...mine, order]);
      return answer({ order });
    },
  );

  server.registerTool(
    "list_my_purchase_orders",
    {
      title: "My purchase orders",
      description: "The purchase orders that were placed in your name, newest first.",
      inputSchema: z.strictObject({}),
      annotations: { readOnlyHint: true, openWorldHint: false },
      scopeChallenge: reads,
    },
    (_args, context) => {
      const { subject } = callerOf(context.http?.authInfo);
      return answer({ buyer: subject, orders: (ordersOf.get(subject) ?? []).toReversed() });
    },
  );

  server.registerTool(
    "cancel_my_purchase_order",
    {
      title: "Cancel a purchase order",
      description: "Cancels a purchase order that was placed in your name. Those of others are not there for you.",
      inputSchema: z.strictObject({ order_id: z.string().regex(/^PO-[0-9]{4,6}$/) }),
      annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: true },
      scopeChallenge: writes,
    },
    ({ order_id }, context) => {
      const { subject } = callerOf(context.http?.authInfo);
      const mine = ordersOf.get(subject) ?? [];
      if (!mine.some(({ id }) => id === order_id)) throw new Error(`You have no purchase order ${order_id}.`);
      const cancelled = mine.map((order) =>
        order.id === order_id ? { ...order, status: "cancelled" as const } : order,
      );
      ordersOf.set(subject, cancelled);
      return answer({ order: cancelled.find(({ id }) => id === order_id) });
    },
  );
  return server;
}

const placed = ({ status }: PurchaseOrder) => status === "placed";

const answer = (value: Record<string, unknown>) => ({
  content: [{ type: "text" as const, text: JSON.stringify(value) }],
  structuredContent: value,
});

/** The person that a tool works for. Drawbridge's own token, which asks for the lists, is nobody's. */
function callerOf(auth: AuthInfo | undefined): Caller {
  const caller = auth?.extra?.["caller"] as Caller | undefined;
  if (caller?.actor === undefined) throw new Error("This is done for somebody, or not at all.");
  return caller;
}

const check = tokensFor(resource, issuer);
const verifier = {
  async verifyAccessToken(token: string): Promise<AuthInfo> {
    const caller = await check(token).catch((error: Error) => {
      console.log(`refused ${error.message}`);
      throw isAboutToken(error)
        ? new OAuthError(OAuthErrorCode.InvalidToken, "The token is not one that was made for this API.")
        : new OAuthError(OAuthErrorCode.ServerError, "Tokens cannot be checked at the moment.");
    });
    const { subject, actor, client, scopes, tokenId, expiresAt } = caller;
    console.log(`accepted ${JSON.stringify({ subject, actor, scopes, tokenId })}`);
    return { token, clientId: client, scopes: [...scopes], expiresAt, resource: new URL(resource), extra: { caller } };
  },
};

const mcp = toNodeHandler(createMcpHandler(createMcpServer));
const ownHost = localhostHostValidation();

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (!ownHost(request, response)) return;
  if (request.url === metadataPath) {
    // RFC 9728 §3.2: whoever is refused here reads where tokens come from.
    response.writeHead(200, { "content-type": "application/json" });
    response.end(
      JSON.stringify({
        resource,
        authorization_servers: [issuer],
        scopes_supported: ["purchases:read", "purchases:write"],
      }),
    );
    return;
  }
  if (request.url !== "/mcp") return void response.writeHead(404).end();
  let auth: AuthInfo;
  try {
    auth = await verifyBearerToken(request.headers.authorization, {
      verifier,
      expectedResource: new URL(resource),
      resourceMetadataUrl,
    });
  } catch (error) {
    const refusal = bearerAuthChallengeResponse(error, { resourceMetadataUrl });
    response.writeHead(refusal.status, Object.fromEntries(refusal.headers)).end(await refusal.text());
    return;
  }
  await mcp(Object.assign(request, { auth }) as NodeIncomingMessageLike, response);
}

const http = createServer((request, response) => {
  handle(request, response).catch((error: unknown) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});
http.listen(port, "127.0.0.1", () => {
  console.log(`The purchase order API listens on ${resource} and accepts tokens of ${issuer} that are made for it.`);
});
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    http.close();
    http.closeAllConnections();
  });
}
