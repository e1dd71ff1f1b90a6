/** The composition root: settings in, a running gateway out. Nothing else knows every part. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { openEvidence, personalKeysOf } from "../audit/evidence.ts";
import type { Journal } from "../audit/journal.ts";
import { KEYS_DESTROYED } from "../audit/personal.ts";
import { keepFor, type RetentionParts } from "../audit/retention.ts";
import type { LoadedSettings } from "../config/load.ts";
import type { Environment } from "../config/references.ts";
import type { Settings } from "../config/schema.ts";
import { userSecretReader } from "../config/user-secrets.ts";
import type { Authenticated, UpstreamCredential } from "../core/call.ts";
import { systemClock } from "../core/clock.ts";
import { newId } from "../core/ids.ts";
import { Secret } from "../core/secret.ts";
import { sourceBehind } from "../net/source.ts";
import type { Authority } from "../oauth/authority.ts";
import { endsAccess, type OAuthEvent } from "../oauth/events.ts";
import { placeOf } from "../oauth/http.ts";
import { protectedResourceMetadata } from "../oauth/metadata.ts";
import { usersIn } from "../oauth/people/users.ts";
import type { AuthorizationServerOptions } from "../oauth/server.ts";
import { openTrails } from "../oauth/trail.ts";
import { shadowDiffers } from "../observe/events.ts";
import { createLogger, type Logger, type LogStream } from "../observe/logger.ts";
import { createTelemetry } from "../observe/telemetry.ts";
import { compileApprovals } from "../policy/approvals.ts";
import type { Policy } from "../policy/engine.ts";
import { compileExpression } from "../policy/expressions.ts";
import { openPolicy } from "../policy/live.ts";
import { furtherScopes } from "../policy/step-up.ts";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/ports.ts";
import { watchChanges } from "../store/watch.ts";
import type { UpstreamCredentials } from "../upstream/credentials.ts";
import { openUpstream } from "../upstream/open.ts";
import type { ListName, Upstream, UpstreamEvents } from "../upstream/upstream.ts";
import type { ReadUserSecret } from "../upstream/user-values.ts";
import { type Administered, answerAdmin, answerControl } from "./admin.ts";
import { contractAppliers, NOTHING_TO_DO, otherReplicas, policyChanges, taking, usable } from "./appliers.ts";
import { openApprovals } from "./approvals/approvals.ts";
import { needsOfSettings } from "./approvals/needs.ts";
import { openAuditExport, spillFolderOf } from "./audit-export.ts";
import { authorityFor, clientsFor } from "./authority.ts";
import { type Catalogue, openCatalogue, type Withheld } from "./catalogue.ts";
import { type Concealer, openConcealer } from "./conceal.ts";
import { withoutPersonal } from "./connect-first.ts";
import { type Connections, openConnections } from "./connections.ts";
import { openContracts } from "./contracts.ts";
import { controlSocketOf, openControl } from "./control.ts";
import { type Actor, openDeeds } from "./deeds.ts";
import { openFlow } from "./flow.ts";
import { openForwarding } from "./forwarding.ts";
import { handleMcp } from "./handle-mcp.ts";
import { openIdentities } from "./identities.ts";
import { openInspection } from "./inspection.ts";
import { type Interaction, openInteraction } from "./interaction.ts";
import { openLimits } from "./limits/limits.ts";
import { type Listener, listen } from "./listener.ts";
import { following } from "./lists.ts";
import { followLock } from "./lock.ts";
import { maskKey } from "./masking/key.ts";
import { type Masking, openMasking, openScrubber, type Scrubber } from "./masking.ts";
import { oauthRecord } from "./oauth-record.ts";
import { openOutcomeTools } from "./outcome-tool.ts";
import type { Parts } from "./parts.ts";
import { openPins, PINS_CHANGED } from "./pins.ts";
import { reachOf } from "./reach.ts";
import { type Change, openReload, type Prepared } from "./reload.ts";
import { openResumption } from "./resume.ts";
import { createRoutes } from "./routes.ts";
import { openSeals } from "./sealed-state.ts";
import { openServed } from "./served.ts";
import { openSessions } from "./sessions.ts";
import { type Changing, callerIn, openStreams } from "./streams.ts";
import { openTasks, type Tasks } from "./tasks.ts";
import { countUnderWay } from "./under-way.ts";
import { LEASE_MS, openUnfinished } from "./unfinished.ts";
import { connectedCredentials, upstreamCredentials } from "./upstream-credentials.ts";

export interface ServedServer {
  readonly name: string;
  readonly state: string;
  readonly problem?: string;
  /** Names as clients see them. */
  readonly tools: readonly string[];
  readonly resources: number;
  readonly prompts: number;
}

export interface RunningGateway {
  /** The MCP endpoint. */
  readonly url: string;
  readonly publicUrl: string;
  /** The one-time link that makes the owner's account; undefined when there is an account. */
  setupLink(): Promise<string | undefined>;
  servers(): readonly ServedServer[];
  withheld(): readonly Withheld[];
  /** Resolves when each upstream was read once or has failed. */
  readonly ready: Promise<void>;
  /** The socket for `drawbridge servers`; undefined when there is none. */
  readonly control: string | undefined;
  /** Takes what changed in the settings file. Throws `settings_invalid` when anything in it is wrong, and changes nothing then. */
  reload(by: Actor): Promise<readonly Change[]>;
  /** Finishes calls in flight, up to `listen.shutdownSeconds`, then stops everything. */
  close(): Promise<void>;
}

export interface StartOptions {
  readonly settings: LoadedSettings;
  /** The process's environment, of which stdio servers get a harmless part and telemetry its `OTEL_…` variables. */
  readonly environment: Environment;
  readonly logger?: Logger;
  /** Where log lines go when there is no `logger`, without the secrets of the settings. Default: stderr. */
  readonly logTo?: LogStream;
  /** How long a gateway that says nothing is believed to be there, until another undoes what its tools with steps began. */
  readonly leaseMs?: number;
  /** Who takes requests, inside somebody else's server. Default: a port of our own, as `listen` of the settings says. */
  readonly listener?: Listener;
  /** In place of the one that the settings name. The gateway closes it. */
  readonly store?: Store;
  /** Puts something around each server, to see what it answers before anything is taken out of that. */
  readonly around?: (upstream: Upstream) => Upstream;
}

/** Starts a gateway. Resolves when it listens; upstreams may still be starting. Rejects with `DrawbridgeError` and leaves nothing behind. */
export async function startGateway({
  settings: loaded,
  environment,
  logger,
  logTo = process.stderr,
  leaseMs = LEASE_MS,
  listener,
  store,
  around = (upstream) => upstream,
}: StartOptions): Promise<RunningGateway> {
  const { settings } = loaded;
  const conceal = openConcealer();
  conceal.add(loaded.known);
  const scrubber = openScrubber(settings.mask);
  const log =
    logger ??
    createLogger(settings.log, {
      write: (line) => logTo.write(scrubber.line(conceal.text(line))),
      isTTY: logTo.isTTY === true,
    });
  const undo: (() => Promise<unknown> | unknown)[] = [];
  try {
    return await start({ loaded, environment, log, conceal, scrubber, leaseMs, listener, store, around, undo });
  } catch (error) {
    for (const step of undo.toReversed()) {
      try {
        await step();
      } catch (failure) {
        log.warn({ error: failure }, "a part could not be stopped");
      }
    }
    throw error;
  }
}

interface Start {
  readonly loaded: LoadedSettings;
  readonly environment: Environment;
  readonly log: Logger;
  readonly conceal: Concealer;
  readonly scrubber: Scrubber;
  readonly leaseMs: number;
  readonly listener: Listener | undefined;
  readonly store: Store | undefined;
  readonly around: (upstream: Upstream) => Upstream;
  /** What to do, last first, when the start fails half-way. */
  readonly undo: (() => Promise<unknown> | unknown)[];
}

async function start(given: Start): Promise<RunningGateway> {
  const { loaded, environment, log, conceal, scrubber, leaseMs, undo } = given;
  const { settings, folder } = loaded;
  const version = await ownVersion();
  const replica = newId();
  const policy = openPolicy(settings, ({ principal, target, decision, shadow }) => {
    const { effect } = decision;
    const role = shadow.rule?.replace(/[.:].*$/s, "");
    const tool = target.kind === "tool" && target.server !== "" ? target.name : undefined;
    telemetry.shadowed({ role, tool, from: effect, to: shadow.effect });
    shadowDiffers(log, {
      subject: principal.subject,
      client: principal.client,
      target: target.name,
      effect,
      rule: effect === "step-up" ? undefined : decision.rule,
      wouldBe: shadow.effect,
      wouldBeBy: shadow.rule,
    });
  });
  // First of all: with a lockfile that cannot be trusted nothing is started.
  const lock = await followLock({ settings: settings.lock, folder, beside: loaded.file !== undefined }, log);
  undo.push(() => lock.close());

  const userSecrets = userSecretReader(folder, environment, (message) => log.warn({}, message));
  const readUserSecret: ReadUserSecret = async (name, subject) => {
    const value = await userSecrets(name, subject);
    if (value !== undefined) conceal.add([value], "users");
    return value;
  };
  let issuing: Authority | undefined;
  let catalogue: Catalogue | undefined;
  let asking: Interaction | undefined;
  let tasking: Tasks | undefined;
  let connecting: Connections | undefined;
  const eventsOf = (name: string): UpstreamEvents => ({
    listChanged: (list: ListName) => catalogue?.changed(name, list),
    elicitationComplete: (params, instance) =>
      asking?.elicitationComplete(
        name,
        params,
        (session) => upstreams.get(name)?.instanceOf?.(callerIn(session)) === instance,
      ),
    taskStatus: (params) => tasking?.statusChanged(name, params),
    resourceUpdated: (uri, params, instance) =>
      catalogue?.blocked(name, uri) === true || streams.resourceUpdated(name, uri, params, instance),
  });
  // Its files must be there before a server is confined: what is not there cannot be hidden.
  const store =
    given.store ??
    (await openStore(settings.store, { baseDirectory: folder, warn: (message) => log.warn({}, message) }));
  undo.push(() => store.close());
  const inspection = openInspection({
    settings: settings.answers,
    counted: (action, rule, count) => telemetry.inspected(action, rule, count),
  });
  const masking = openMasking({
    settings: settings.mask,
    key: await maskKey(store.records, settings.tokens.keyEncryptionSecret),
    records: store.records,
    rolesOf: (by) => policy.roles(by),
    counted: (counts) => telemetry.masked(counts),
    inspection,
    conceal: conceal.text,
  });
  const said = (by: Authenticated, params: string) => {
    const view = masking.viewOf(by);
    const told = view.said(params);
    flow.heard(by, undefined, view, false);
    return told;
  };
  // Servers take longest to start, so they begin now and start while the rest is made.
  const served = openServed({
    servers: settings.servers,
    eventsOf,
    open(name, server, events) {
      const connected = connectedCredentials(name, server, () => connecting);
      const upstream = openUpstream(name, server, {
        logger: log.child({ server: name }),
        events,
        version,
        baseDirectory: folder,
        environment,
        readUserSecret,
        beginSpan: (title, { trace }, attributes) => telemetry.begin(title, "client", trace, attributes),
        hidden: [...(loaded.file === undefined ? [] : [resolve(loaded.file)]), ...secretFiles(settings, folder)],
        credentials: remembered(connected ?? upstreamCredentials(name, server, () => issuing), conceal),
        conceal: conceal.text,
      });
      return given.around(connected === undefined ? upstream : withoutPersonal(upstream, connected));
    },
    conceal: conceal.text,
    onChange: () => catalogue?.serve([...upstreams.values()]),
    log,
  });
  const { upstreams } = served;
  undo.push(() => served.close(AbortSignal.abort()));
  /** A resource that has moved to another server is not the one that was followed. */
  const mayHear = (by: Authenticated, server: string, uri: string) => {
    const found = catalogue?.find("resource", uri);
    const target = found ?? { server, kind: "resource", name: uri, upstreamName: uri, pin: undefined };
    return target.server === server && policy.decide(by, target, following(uri, systemClock())).effect === "permit";
  };
  const changing: Changing = {
    lists: (before, now) => otherLists(catalogue, [policy, before], [policy, now]),
    unfollow: (session, uri) => sessions.follow(session, uri, undefined),
  };
  const resumption = openResumption(settings.listen);
  undo.push(() => resumption.close());
  const streams = openStreams(upstreams, async (by) => issuing?.current(by), resumption, log, mayHear, said, changing);
  undo.push(() => streams.close());

  const otlpEndpoint = settings.telemetry.otlpEndpoint ?? environment["OTEL_EXPORTER_OTLP_ENDPOINT"];
  const telemetry = await createTelemetry(
    { ...settings.telemetry, ...(otlpEndpoint !== undefined && { otlpEndpoint }) },
    log,
    environment,
  );
  undo.push(() => telemetry.close());
  const {
    journal,
    keys: personalKeys,
    signer,
  } = openEvidence({
    store,
    settings: settings.audit,
    encryption: settings.tokens.keyEncryptionSecret,
    folder,
    replica,
    logger: log,
    // What servers say may have secrets of the settings in it; the record of it must not.
    clean: conceal.text,
    spillFolder: spillFolderOf(settings, folder),
  });
  undo.push(() => journal.close());
  const auditExport = openAuditExport(settings.audit, store.records);
  const kept = { log: store.audit, records: store.records, journal, signer, replica, notBeyond: auditExport.reached };
  const endRetention = retention(settings.audit, kept, log);
  undo.push(endRetention);

  // The port is bound first: with port 0 the public URL, which every token and document names, is known only then.
  const listener = given.listener ?? (await listen(settings.listen, settings.tls, log));
  undo.push(() => listener.close(0));
  const publicUrl = new URL(settings.publicUrl ?? listener.url);
  auditExport.begin({
    log: store.audit,
    records: store.records,
    keys: personalKeysOf({ store, encryption: settings.tokens.keyEncryptionSecret }),
    replica,
    source: publicUrl.href,
    folder,
    conceal: conceal.text,
    logger: log,
  });
  undo.push(() => auditExport.close());
  const sourceOf = sourceBehind(settings.listen.trustedProxies);
  const resource = placeOf(publicUrl).resource;
  const trails = openTrails({ records: store.records, replica, sourceOf, resource, log });
  undo.push(() => trails.close());
  const report = (event: OAuthEvent) => {
    if (endsAccess(event))
      masking
        .forget(event.user)
        .catch((error: unknown) => log.warn({ error }, "stand-ins of a user were not forgotten"));
    trails.heard(event);
    return journal.append(oauthRecord(event, replica, systemClock()));
  };
  let { servers } = settings;
  const connections = openConnections({
    servers: () => servers,
    place: placeOf(publicUrl),
    records: store.records,
    users: usersIn(store.records),
    encryption: settings.tokens.keyEncryptionSecret,
    report,
    log,
    onConnected(name, elicitationId) {
      for (const list of LISTS) catalogue?.changed(name, list);
      asking?.elicitationComplete(name, JSON.stringify({ elicitationId }), () => true);
    },
  });
  connecting = connections;
  undo.push(() => connections.close());
  const sweepConnections = () =>
    void connections.sweep().catch((error: unknown) => log.warn({ error }, "connections could not be looked through"));
  const underWay = countUnderWay();
  const changes = await watchChanges(store.records);
  undo.push(() => changes.close());
  changes.whileUsed(() => streams.size > 0 || underWay.count > 0);
  let further = furtherScopes(settings.stepUp);
  const embedded: AuthorizationServerOptions = {
    publicUrl,
    signIn: settings.signIn,
    clients: clientsFor(publicUrl, settings, log),
    tokens: settings.tokens,
    records: store.records,
    changes,
    log,
    sourceOf,
    reach: (who) => reachOf(policy, catalogue, who),
    furtherScopes: () => further,
    connections,
    onEvent: report,
  };
  const { authority, server } = await authorityFor(settings.authorization, embedded);
  issuing = authority;
  sweepConnections();
  // Of a token that has run out another server says nothing, and its user comes back with a new one: what is theirs ends when it is idle.
  const hasAccess = async (by: Authenticated) =>
    (settings.authorization !== undefined && by.expiresAt <= systemClock()) || authority.stands(by);
  authority.onEnded(() => {
    void streams.sweep();
    sweepConnections();
    for (const upstream of upstreams.values()) void upstream.sweep?.(hasAccess);
  });
  undo.push(() => authority.close());

  const pins = openPins(store.records, log, { lock: lock.now, settings: settings.lock });
  const offered = openCatalogue([...upstreams.values()], {
    pins,
    contracts: openContracts(settings, log, compileExpression),
    log,
    onChange: (list) => streams.listChanged(list),
  });
  catalogue = offered;
  const screened = openIdentities({ raw: served.identities, pins, judged: offered.judged, log });
  const identities = screened.now;
  const met = served.met.then(() => screened.again());
  // Something was approved, here or at another replica: what is offered is compared anew.
  const compareAnew = () => {
    void screened.again();
    for (const name of upstreams.keys()) for (const list of LISTS) offered.changed(name, list);
  };
  lock.onChange(compareAnew);
  changes.on(PINS_CHANGED, compareAnew);
  changes.on(KEYS_DESTROYED, () => personalKeys.forget());
  // The first sign-in should not wait for what can be loaded now that nothing else is to do.
  void Promise.all([offered.ready, met])
    .then(() => server?.warm())
    .catch((error: unknown) => log.error({ error }, "the authorization server cannot start"));

  const seals = openSeals(store.records, settings.tokens.keyEncryptionSecret);
  // No other process sees what is kept in the memory of this one.
  const shared = settings.store === "memory" ? undefined : store.records;
  const interaction = openInteraction({
    settings: settings.interaction,
    seals,
    streams,
    telemetry,
    identities,
    replica,
    shared,
    log,
    said,
  });
  asking = interaction;
  undo.push(() => interaction.close());
  const flow = openFlow(settings.answers.toxicFlow);
  const sessions = await openSessions({
    records: store.records,
    changes: shared && changes,
    encryption: settings.tokens.keyEncryptionSecret,
    limits: settings.listen,
    onEnd(session) {
      flow.sessionEnded(session.by, session.id);
      interaction.sessionEnded(session);
      streams.sessionEnded(session);
      resumption.sessionEnded(session);
      for (const upstream of upstreams.values()) upstream.sessionEnded?.(session.id);
    },
    onFollow: (session, subscriptions) => streams.follow(session, subscriptions),
    streaming: (session) => streams.streaming(session),
    log,
  });
  undo.push(() => sessions.close());
  const forwarding = openForwarding({ resumption, shared, seals, log });
  undo.push(() => forwarding.close());
  const tasks = openTasks({
    records: store.records,
    shared,
    seals,
    replica,
    maxCallSeconds: (name) => servers[name]?.maxCallSeconds ?? 0,
    parts: () => parts,
    log,
  });
  tasking = tasks;
  undo.push(() => tasks.close());
  const encryption = settings.tokens.keyEncryptionSecret;
  const outcomes = openOutcomeTools({
    parts: () => parts,
    unfinished: openUnfinished({ records: store.records, encryption, log, leaseMs }),
    log,
    everyMs: leaseMs / 2,
  });
  undo.push(() => outcomes.close(AbortSignal.abort()));
  let approvalRules = compileApprovals(settings.approvals);
  const approvals = openApprovals({
    records: store.records,
    seals,
    // Whoever else knows a reason to have a call approved is a line here.
    sources: [needsOfSettings(() => approvalRules), flow.needs],
    version: () => approvalRules.version,
    answerSeconds: settings.interaction.answerSeconds,
    parts: () => parts,
  });
  const limits = await openLimits({
    settings,
    cache: settings.cache === "memory" ? undefined : revealed(settings.cache),
    records: shared,
    log,
  });
  undo.push(() => limits.close());
  const parts: Parts = {
    verify: authority.verify,
    policy,
    catalogue: offered,
    upstreams,
    identities,
    limits,
    sessions,
    streams,
    resumption,
    forwarding,
    interaction,
    outcomes: outcomes.over,
    masking,
    flow,
    approvals,
    tasks,
    journal,
    telemetry,
    log,
    listen: settings.listen,
    sourceOf,
    auditFields: settings.audit,
    serverInfo: {
      name: "drawbridge",
      get title() {
        return `Drawbridge: ${[...upstreams.keys()].join(", ")}`;
      },
      version,
    },
    resourceMetadataUrl: new URL(
      `/.well-known/oauth-protected-resource${new URL(authority.metadata.resource).pathname}`,
      publicUrl,
    ).href,
    wanted: authority.metadata,
    underWay,
    replica,
    clock: systemClock,
  };
  void offered.ready.then(outcomes.recover);
  telemetry.observeUpstreams(() =>
    [...upstreams.values()].map((upstream) => ({ name: upstream.name, ...upstream.state() })),
  );
  telemetry.observeSessions(() => sessions.size);
  telemetry.observeQuestions(() => interaction.open());
  telemetry.observeJournal(
    () => journal.pending,
    () => !records(journal),
  );
  telemetry.observeSinks(auditExport.state);
  telemetry.observeLimits(() => limits.together);

  const policyChange = policyChanges(policy, (before, now) => {
    streams
      .reconsider((by) => otherLists(catalogue, [before, by], [now, by]), changing.unfollow)
      .catch((error: unknown) => log.warn({ error }, "what clients follow could not be looked through"));
  });
  /** What limits are made of is in several settings. */
  const withLimits = (change: Prepared, all: Settings): Prepared => {
    const put = usable("limits", () => limits.prepare(all));
    return {
      ...change,
      async commit() {
        put();
        return change.commit();
      },
    };
  };
  const deeds = openDeeds(withMaskedErrors(journal, masking), replica, systemClock);
  const reload = openReload({
    loaded,
    // A further setting that can change while the gateway runs is a line here.
    appliers: {
      ...contractAppliers(offered, log),
      servers(wanted) {
        const prepared = served.prepare(wanted);
        return {
          ...prepared,
          commit() {
            servers = wanted;
            return prepared.commit();
          },
        };
      },
      secrets: () => NOTHING_TO_DO,
      audit: auditExport.applier,
      approvals(wanted) {
        const compiled = usable("approvals", () => compileApprovals(wanted));
        return taking("approvals", () => {
          approvalRules = compiled;
        });
      },
      roles: (_, all) => withLimits(policyChange("roles", all), all),
      assign: (_, all) => policyChange("assign", all),
      stepUp(wanted, all) {
        const change = policyChange("stepUp", all);
        return {
          ...change,
          commit() {
            further = furtherScopes(wanted);
            return change.commit();
          },
        };
      },
      mask(wanted) {
        const take = [masking.prepare(wanted), scrubber.prepare(wanted)];
        return taking("mask", () => {
          for (const one of take) one();
        });
      },
      answers(wanted) {
        const take = inspection.prepare(wanted);
        return taking("answers", () => {
          take();
          flow.set(wanted.toxicFlow);
        });
      },
      shadowPolicy: (_, all) => policyChange("shadowPolicy", all),
      limits: (_, all) =>
        taking(
          "limits",
          usable("limits", () => limits.prepare(all)),
        ),
    },
    deeds,
    ...(shared !== undefined && { others: otherReplicas(shared, changes, replica) }),
    onSecrets: conceal.add,
    log,
  });
  undo.push(() => reload.close());
  const administered: Administered = {
    parts,
    served,
    reload,
    deeds,
    trials: policy.trials,
    approvals: approvals.office,
    sinks: auditExport.state,
    conceal,
    publicUrl: publicUrl.href.replace(/\/$/, ""),
  };
  const control = await openControl(controlSocketOf(settings, folder, loaded.file !== undefined), {
    named: settings.control.socket !== "auto",
    answer: (request, response) => answerControl(administered, request, response),
    log,
  });
  undo.push(() => control.close());

  let stopping = false;
  const route = createRoutes(publicUrl, settings.listen, {
    mcp: (request, response) => handleMcp(parts, request, response),
    oauth: {
      owns: (pathname) => server?.owns(pathname) ?? false,
      answer: (request, response) => server?.handle(request, response),
    },
    resourceMetadata: () =>
      protectedResourceMetadata(authority.metadata, `Drawbridge: ${[...upstreams.keys()].join(", ")}`),
    health: () => ({ status: "ok" }),
    ready: () => {
      const states = Object.fromEntries([...upstreams].map(([name, upstream]) => [name, upstream.state().state]));
      const recording = records(journal);
      const ok = !stopping && recording && Object.values(states).some((state) => state === "ready");
      return {
        ok,
        body: {
          status: ok ? "ready" : stopping ? "stopping" : "not ready",
          servers: states,
          audit: recording ? "ok" : "failing",
        },
      };
    },
    metrics: (openMetrics) => telemetry.metricsText(openMetrics),
    admin: (request, response, path) => answerAdmin(administered, request, response, path),
  });
  listener.answer(async (request, response, path) => {
    await route(request, response, path);
    trails.answered(request, response);
  });
  const sweeper = setInterval(() => {
    sessions.sweep();
    store.records.sweep().catch((error: unknown) => log.warn({ error }, "expired rows could not be deleted"));
  }, SWEEP_MS);
  sweeper.unref();

  const endpoint = authority.metadata.resource;
  log.info({ url: endpoint, servers: [...upstreams.keys()] }, "the gateway listens");
  let closing: Promise<void> | undefined;
  return {
    url: endpoint,
    publicUrl: publicUrl.href.replace(/\/$/, ""),
    setupLink: async () => server?.setupLink(),
    ready: Promise.all([offered.ready, met]).then(() => undefined),
    control: control.path,
    reload: (by) => reload.reload(by),
    withheld: () => offered.withheld(),
    servers: () =>
      [...upstreams.values()].map((upstream) => {
        const mine = (list: ListName) => offered.now(list).filter((entry) => entry.target.server === upstream.name);
        const { state, ...rest } = upstream.state();
        const problem = rest.problem ?? offered.problem(upstream.name);
        return {
          name: upstream.name,
          state,
          ...(problem !== undefined && { problem }),
          tools: mine("tools").map((entry) => entry.target.name),
          resources: mine("resources").length + mine("resourceTemplates").length,
          prompts: mine("prompts").length,
        };
      }),
    close() {
      closing ??= (async () => {
        stopping = true;
        clearInterval(sweeper);
        const deadline = AbortSignal.timeout(settings.listen.shutdownSeconds * 1000);
        // New connections are refused from now on; what was asked is answered.
        const drained = listener.close(settings.listen.shutdownSeconds * 1000 + FAREWELL_MS);
        await control.close();
        await interaction.close();
        await tasks.close();
        streams.close();
        resumption.close();
        await underWay.over(deadline);
        await outcomes.close(deadline);
        const settled = reload.close();
        await served.close(deadline);
        await settled;
        await drained;
        await forwarding.close();
        await sessions.close();
        await limits.close();
        changes.close();
        lock.close();
        await authority.close();
        await connections.close();
        await trails.close();
        await endRetention();
        try {
          await journal.close();
        } finally {
          await auditExport.close();
          await telemetry.close();
          await store.close();
        }
        log.info({}, "the gateway has stopped");
      })();
      return closing;
    },
  };
}

const revealed = (place: string | Secret) => (place instanceof Secret ? place.reveal() : place);

/** What is wrong in a settings file is said with what is written there, which may be a key in the wrong place. */
function withMaskedErrors(journal: Journal, masking: Masking): Journal {
  const append: Journal["append"] = (record, commit) => {
    const { error } = record;
    if (error === undefined) return journal.append(record, commit);
    const { message, detail } = error;
    const told = { ...error, message: masking.recordedText(message) };
    const masked = {
      ...record,
      error: detail === undefined ? told : { ...told, detail: masking.recordedText(detail) },
    };
    return journal.append(masked, commit);
  };
  return Object.create(journal, { append: { value: append } }) as Journal;
}

/** Which lists are others for somebody than they were for them. */
function otherLists(
  catalogue: Catalogue | undefined,
  ...both: readonly [was: readonly [Policy, Authenticated], is: readonly [Policy, Authenticated]]
): ReadonlySet<ListName> {
  const seenBy = ([policy, by]: readonly [Policy, Authenticated], list: ListName) =>
    (catalogue?.now(list) ?? [])
      .flatMap(({ target }) => (policy.decide(by, target).effect === "permit" ? [target.name] : []))
      .join("\n");
  return new Set(LISTS.filter((list) => seenBy(both[0], list) !== seenBy(both[1], list)));
}

/** Tokens that are sent to a server are taken out of what it complains. */
function remembered(credentials: UpstreamCredentials | undefined, conceal: Concealer): UpstreamCredentials | undefined {
  if (credentials === undefined) return undefined;
  const noted = <T extends UpstreamCredential | undefined>(made: T): T => {
    const [, token] = made?.value.reveal().split(" ") ?? [];
    if (token !== undefined) conceal.add([new Secret(token)], "users");
    return made;
  };
  return {
    ...credentials,
    for: async (...asked) => noted(await credentials.for(...asked)),
    own: async (...asked) => noted(await credentials.own(...asked)),
  };
}

/** `audit.keep`. What ends it. */
function retention(
  { keep }: Settings["audit"],
  parts: Omit<RetentionParts, "clock">,
  log: Logger,
): () => Promise<void> {
  if (keep === undefined) return async () => {};
  return keepFor(Number.parseInt(keep, 10), {
    ...parts,
    clock: systemClock,
    done: (retirement) => log.info({ ...retirement }, "records older than audit.keep were taken out"),
    failed: (error) => log.warn({ error }, "old records could not be taken out"),
  });
}

function records(journal: Journal): boolean {
  try {
    journal.check();
    return true;
  } catch {
    return false;
  }
}

const LISTS: readonly ListName[] = ["tools", "resources", "resourceTemplates", "prompts"];
/** What has to end at the deadline is told so before its connection is cut. */
const FAREWELL_MS = 500;
const SWEEP_MS = 60_000;

/** Files that hold secrets or the store, which a confined server must not see wherever they are. */
function secretFiles({ secrets, store, tls }: Settings, folder: string): readonly string[] {
  const files = Object.values(secrets).flatMap((source) => ("file" in source ? [resolve(folder, source.file)] : []));
  const database =
    typeof store === "string" && store.startsWith("sqlite:/") ? store.slice("sqlite:".length) : undefined;
  const stored = database === undefined ? [] : [database, `${database}-wal`, `${database}-shm`];
  return [...files, ...stored, ...(tls === undefined ? [] : [tls.key])];
}

async function ownVersion(): Promise<string> {
  // From `src/gateway` in the clone and from `gateway` in the package the manifest is at the same distance or one nearer.
  for (const place of ["../package.json", "../../package.json"]) {
    const manifest = await readFile(new URL(place, import.meta.url), "utf8").catch(() => undefined);
    if (manifest !== undefined) return (JSON.parse(manifest) as { version: string }).version;
  }
  return "0.0.0";
}
