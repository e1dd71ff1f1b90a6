/**
 * The jobs of `@modelcontextprotocol/server-memory` (nine tools that take any text) in five: what is remembered is bounded, each person
 * has a memory of their own, and what cannot be undone is asked about. docs/moving-a-server.md tells how it was moved.
 */
import { refuse, resource, type Server, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";
import { changeGraph, type Entity, type Graph, readGraph } from "./graph.ts";

const MAX_ENTITIES = 2_000;
const MAX_RELATIONS = 5_000;
const MAX_OBSERVATIONS = 50;
const PAGE = 20;
const MAX_RELATIONS_SHOWN = 200;

const name = z.string().min(1).max(120).describe("The entity's name, exactly as it was remembered, e.g. Ada Lovelace.");
const entityType = z.string().min(1).max(60).describe("What kind of thing it is, e.g. person.");
const text = z.string().min(1).max(500);
const relation = z.object({ from: name, to: name, relationType: z.string().min(1).max(60) });

const shownEntity = z.object({
  name: z.string(),
  entityType: z.string(),
  observations: z.array(z.string()).max(MAX_OBSERVATIONS),
});
const shownRelation = z.object({ from: z.string(), to: z.string(), relationType: z.string() });

/** `fileOf`: where the memory of a person is, by the subject of the token. */
export function memoryServer(fileOf: (subject: string) => string): Server {
  const recall = tool({
    name: "recall",
    title: "Recall what is known",
    description: {
      does: "Shows what is remembered: entities with their observations, and the relations that begin or end at them.",
      useWhen: "before answering about people, things and wishes that may have come up earlier",
      notWhen: "for general knowledge; only what was remembered is here",
      returns: "entities in the order in which they were remembered, and whether there are more",
      limits: "20 entities a page; the query is looked for as it stands, in any case",
    },
    input: z.object({
      query: text.max(120).optional().describe("Text that must occur in the name, type or an observation, e.g. tea."),
      names: z.array(name).max(PAGE).optional().describe("Only entities of these names, e.g. [Ada Lovelace]."),
      page: z.int().min(1).max(100).default(1).describe("Which page, e.g. 2."),
    }),
    output: z.object({
      entities: z.array(shownEntity).max(PAGE),
      relations: z.array(shownRelation).max(MAX_RELATIONS_SHOWN),
      more: z.boolean(),
    }),
    access: "read",
    async handler({ query, names, page }, { principal }) {
      const { entities, relations } = await readGraph(fileOf(principal.subject));
      const found = entities.filter(
        (one) => (names === undefined || names.includes(one.name)) && (query === undefined || speaksOf(one, query)),
      );
      const shown = found.slice((page - 1) * PAGE, page * PAGE);
      const here = new Set(shown.map((one) => one.name));
      return {
        entities: shown.map(briefly),
        relations: relations.filter(({ from, to }) => here.has(from) || here.has(to)).slice(0, MAX_RELATIONS_SHOWN),
        more: found.length > page * PAGE,
      };
    },
  });

  const remember = tool({
    name: "remember",
    title: "Remember something",
    description: {
      does: "Remembers entities, and observations about them; what is known already stays as it is.",
      useWhen: "when something comes up that will matter in a later conversation",
      notWhen: "for passwords and keys, or for how two entities belong together; relate does that",
      returns: "what was new",
      limits: "20 rows at a time, all or none of them, 500 characters each; 50 observations of one entity",
    },
    input: z.object({
      facts: z
        .array(z.object({ name, entityType: entityType.optional(), observation: text.optional() }))
        .min(1)
        .max(20)
        .describe("A row for each observation; the type is needed when the entity is new, e.g. name Ada, type person."),
    }),
    output: z.object({
      results: z.array(z.object({ name: z.string(), addedObservations: z.array(z.string()).max(20) })).max(20),
    }),
    access: "write",
    idempotent: true,
    limits: { perMinute: 60 },
    handler: ({ facts }, { principal }) =>
      changeGraph(fileOf(principal.subject), (graph) => {
        const added = new Map<string, string[]>();
        for (const { name, entityType, observation } of facts) {
          const entity = graph.entities.find((one) => one.name === name) ?? begin(graph, name, entityType);
          const news = added.get(name) ?? [];
          added.set(name, news);
          if (observation === undefined || entity.observations.includes(observation)) continue;
          if (entity.observations.length >= MAX_OBSERVATIONS)
            refuse(`${name} has ${MAX_OBSERVATIONS} observations. Take some back first.`);
          entity.observations.push(observation);
          news.push(observation);
        }
        return { results: [...added].map(([name, addedObservations]) => ({ name, addedObservations })) };
      }),
  });

  const relate = tool({
    name: "relate",
    title: "Relate entities",
    description: {
      does: "Remembers how entities belong together.",
      useWhen: "when two entities that are known have something to do with each other, in active voice",
      notWhen: "for what is about one entity alone; remember does that",
      returns: "the relations that were new",
      limits: "20 at a time, all or none of them; both ends must be known",
    },
    input: z.object({
      relations: z
        .array(relation)
        .min(1)
        .max(20)
        .describe("From whom to whom, and how, e.g. from Ada to Charles, works_with."),
    }),
    output: z.object({ relations: z.array(shownRelation).max(20) }),
    access: "write",
    idempotent: true,
    limits: { perMinute: 60 },
    handler: ({ relations }, { principal }) =>
      changeGraph(fileOf(principal.subject), (graph) => {
        for (const end of relations.flatMap(({ from, to }) => [from, to])) entityOf(graph, end);
        const fresh = relations.filter(
          (one, at) => !graph.relations.some(same(one)) && relations.findIndex((earlier) => same(one)(earlier)) === at,
        );
        if (graph.relations.length + fresh.length > MAX_RELATIONS) refuse("The memory is full of relations.");
        graph.relations.push(...fresh);
        return { relations: fresh };
      }),
  });

  const takeBack = tool({
    name: "take_back",
    title: "Take back what was remembered",
    description: {
      does: "Removes single observations and relations.",
      useWhen: "when something that was remembered is wrong or no longer so",
      notWhen: "to remove an entity with all that is known of it; forget does that",
      returns: "how many were removed; what was not there counts for nothing",
      limits: "20 observations and 20 relations at a time",
    },
    input: z.object({
      observations: z
        .array(z.object({ name, observation: text }))
        .max(20)
        .default([])
        .describe("Observations in the words in which they were remembered, e.g. name Ada, likes tea."),
      relations: z.array(relation).max(20).default([]).describe("Relations, e.g. from Ada to Charles, works_with."),
    }),
    output: z.object({ observations: z.int(), relations: z.int() }),
    access: "destructive",
    idempotent: true,
    limits: { perMinute: 60 },
    handler: ({ observations, relations }, { principal }) =>
      changeGraph(fileOf(principal.subject), (graph) => {
        const before = sizeOf(graph);
        graph.entities = graph.entities.map((one) => ({
          ...one,
          observations: one.observations.filter(
            (known) => !observations.some(({ name, observation }) => name === one.name && observation === known),
          ),
        }));
        graph.relations = graph.relations.filter((known) => !relations.some(same(known)));
        const after = sizeOf(graph);
        return {
          observations: before.observations - after.observations,
          relations: before.relations - after.relations,
        };
      }),
  });

  const forget = tool({
    name: "forget",
    title: "Forget an entity",
    description: {
      does: "Removes one entity with all its observations and relations, for good.",
      useWhen: "when somebody wants that nothing is known of it any more",
      notWhen: "to correct an observation; take_back does that",
      returns: "how much went with it",
      limits: "one entity at a time; its person is asked each time",
    },
    input: z.object({ name }),
    output: z.object({ name: z.string(), observations: z.int(), relations: z.int() }),
    access: "destructive",
    approval: { reason: "all that is remembered of it is removed, for good." },
    handler: ({ name }, { principal }) =>
      changeGraph(fileOf(principal.subject), (graph) => {
        const { observations } = entityOf(graph, name);
        const before = graph.relations.length;
        graph.entities = graph.entities.filter((one) => one.name !== name);
        graph.relations = graph.relations.filter(({ from, to }) => from !== name && to !== name);
        return { name, observations: observations.length, relations: before - graph.relations.length };
      }),
  });

  const entity = resource({
    uri: "memory://entities/{name}",
    name: "entity",
    title: "One entity",
    description: "What is remembered of one entity.",
    input: z.object({ name }),
    output: shownEntity,
    handler: async ({ name }, { principal }) => briefly(entityOf(await readGraph(fileOf(principal.subject)), name)),
  });

  return server({
    name: "memory",
    version: "1.0.0",
    tools: [recall, remember, relate, takeBack, forget],
    resources: [entity],
  });
}

function begin(graph: Graph, name: string, entityType: string | undefined): Entity {
  if (entityType === undefined) refuse(`Nothing is remembered of ${name} yet. Say its entityType.`);
  if (graph.entities.length >= MAX_ENTITIES) refuse("The memory is full. Forget something first.");
  const entity: Entity = { name, entityType, observations: [] };
  graph.entities.push(entity);
  return entity;
}

function entityOf({ entities }: Graph, name: string): Entity {
  return entities.find((one) => one.name === name) ?? refuse(`Nothing is remembered of ${name}.`);
}

function speaksOf({ name, entityType, observations }: Entity, query: string): boolean {
  const wanted = query.toLowerCase();
  return [name, entityType, ...observations].some((one) => one.toLowerCase().includes(wanted));
}

/** The other server's files know no bounds: of an entity with too much in it the newest is shown. */
const briefly = ({ observations, ...entity }: Entity): Entity => ({
  ...entity,
  observations: observations.slice(-MAX_OBSERVATIONS).map((one) => one.slice(0, 500)),
});

const same =
  (one: Graph["relations"][number]) =>
  (other: Graph["relations"][number]): boolean =>
    one.from === other.from && one.to === other.to && one.relationType === other.relationType;

const sizeOf = ({ entities, relations }: Graph) => ({
  observations: entities.reduce((sum, one) => sum + one.observations.length, 0),
  relations: relations.length,
});
