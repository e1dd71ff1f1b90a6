/** What an instruction to a model looks like in data: each sign has a weight, and those that stand together add up. */
import type { OwaspId } from "../finding.ts";
import type { Concept } from "../lexicon.ts";
import type { View } from "../normalise.ts";
import { type Nearness, Reading, type Span } from "../reading.ts";

/** A kind of sign. `docs/rules/` tells of those that definitions have, too. */
export interface AnswerRule {
  readonly id: string;
  readonly owasp: OwaspId;
  /** What is said to whoever reads a withheld answer, after "it". */
  readonly says: string;
}

export const ANSWER_RULES = {
  override: { id: "override-instructions", owasp: "MCP06", says: "tells the model to drop its instructions" },
  turn: { id: "fake-turn", owasp: "MCP06", says: "imitates the markup of a conversation" },
  authority: { id: "fake-authority", owasp: "MCP06", says: "speaks as the system or an administrator" },
  address: { id: "addresses-the-model", owasp: "MCP06", says: "speaks to the model that reads it" },
  persona: { id: "new-task", owasp: "MCP06", says: "gives the model another task or role" },
  conceal: { id: "concealment", owasp: "MCP06", says: "tells the model to hide something from the user" },
  exfiltrate: { id: "exfiltration", owasp: "MCP06", says: "has the conversation or secrets sent away" },
  leak: { id: "prompt-leak", owasp: "MCP06", says: "asks for the model's own instructions" },
  secrets: { id: "credential-reading", owasp: "MCP01", says: "has files with secrets read" },
  tool: { id: "tool-order", owasp: "MCP06", says: "orders tools to be called" },
  tamper: { id: "answer-tampering", owasp: "MCP06", says: "dictates what the user is told" },
  consent: { id: "false-consent", owasp: "MCP06", says: "claims the user's consent" },
  place: { id: "hidden-text", owasp: "MCP06", says: "stands where no reader would see it" },
  disguise: { id: "disguised-text", owasp: "MCP06", says: "is written in disguise" },
} as const satisfies Record<string, AnswerRule>;

export type AnswerRuleName = keyof typeof ANSWER_RULES;

export interface Sign extends Span {
  readonly rule: AnswerRuleName;
  /** 3 is enough to neutralise, 2 to label. */
  readonly weight: number;
}

const AI =
  "(?:a\\.?i\\.?|llms?|large language models?|language models?|ai (?:assistants?|agents?|models?|systems?|bots?|tools?)|chat ?bots?|assistants?|chatgpt|gpt(?:-?\\d[\\w.]*)?|claude|copilot|gemini|mistral|llama)";
const MACHINE = `(?:${AI}|agents?|models?)`;
const ORDER =
  "(?:must|should|shall|have to|has to|need to|needs to|are required to|is required to|are instructed to|is instructed to|will now|are to|is to)";
const PROMPT =
  "(?:instructions?|prompts?|directives?|guidelines?|rules?|programming|training|constraints|context|commands?|directions|guardrails?|safeguards?)";

interface Shape {
  readonly rule: AnswerRuleName;
  readonly weight: number;
  readonly pattern: RegExp;
}

const shape = (rule: AnswerRuleName, weight: number, pattern: string, flags = "gi"): Shape => ({
  rule,
  weight,
  pattern: new RegExp(pattern, flags),
});

/** Shapes of English and of markup. Every repetition is bounded. */
const SHAPES: readonly Shape[] = [
  shape(
    "override",
    3,
    `\\b(?:ignore|disregard|forget|discard|neglect|override|bypass|drop|overrule|do not follow|don'?t follow|stop following)(?: (?:about|all|any|of|the|your|my|our|these|those|this|every|each|everything|and|or|previously|other|else|whatever|prior|previous|preceding|above|earlier|existing|initial|original|past|current|former|system|safety|security|user'?s?|given|developer)){0,6} (?:previous|prior|above|preceding|earlier|existing|initial|original|system|your|developer|safety|former|all|any|current)(?: (?:system|safety|user|given|developer|and|or|other|security|set|of)){0,3} ${PROMPT}\\b`,
  ),
  shape(
    "override",
    3,
    `\\b(?:ignore|disregard|forget)(?: (?:everything|anything|all|what(?:ever)?))(?: (?:that|of|the|you|was|were|have|has|been|i|we|they|the user|just|already)){0,5} (?:above|before this|told|said|asked|instructed|so far|prior|learned|know(?! (?:about|of|how))|stated|written)\\b`,
  ),
  shape(
    "override",
    2,
    `\\b(?:ignore|disregard|forget) (?:the|your|any|all)(?: (?:the|user'?s?|users'?|real|actual|original)){0,3} (?:instructions|request|question|prompt|task|query)\\b`,
  ),
  shape(
    "override",
    2,
    "\\b(?:these|this|the following|new) (?:instructions?|directives?|rules?|message|notice)(?: (?:now|shall|will|must|here))? (?:supersedes?|overrides?|takes? (?:precedence|priority)|replaces?)\\b",
  ),
  shape(
    "turn",
    3,
    "<\\|(?:im_start|start_header_id)\\|?>?\\s{0,3}(?:system|assistant|developer)|<<SYS>>|\\[INST\\][^\\[]{4}|<\\|(?:system|developer)\\|>",
  ),
  shape(
    "turn",
    2,
    "<\\|(?:im_start|im_end|user|assistant|endoftext|eot_id|start_header_id|end_header_id)\\|>|\\[/INST\\]",
  ),
  shape(
    "turn",
    2,
    "</?(?:system(?:[_-](?:prompt|message|reminder|instructions?|override|note))|tool_results?|function_results?|function_calls|assistant_response|user_(?:query|message|input)|hidden_instructions?|ai_instructions?|agent_instructions?|llm_instructions?|important_instructions?)>",
  ),
  shape("turn", 1, "<(?:system|important|instructions?|admin|override|assistant|critical|priority)>"),
  shape(
    "turn",
    1,
    "(?:^|\\n)[#*\\s>\\[]{0,6}(?:system|assistant|human|developer|ai)(?: (?:message|prompt|turn|note|override|update))?[\\]*]{0,3}\\s?:",
  ),
  shape("turn", 1, "(?:^|\\n)#{2,4} ?(?:system|instructions?|assistant|human|response)\\b"),
  shape(
    "turn",
    2,
    "\\b(?:end|begin|start) of (?:tool|function|search|document|retrieved|user|untrusted|external)[ _-](?:results?|output|content|data|response|input|document)\\b|={2,}\\s?(?:end|begin|start)[^\\n=]{0,24}(?:output|result|context|document|data)\\s?={2,}",
  ),
  shape(
    "authority",
    2,
    "\\b(?:SYSTEM|ADMIN(?:ISTRATOR)?|DEVELOPER|ROOT|SECURITY|EMERGENCY|OPERATOR|PRIORITY)[ _-](?:OVERRIDE|DIRECTIVE|INSTRUCTIONS?|PROMPT|COMMAND|MESSAGE|NOTICE|NOTE|UPDATE|MANDATE|ORDER)S?\\b",
    "g",
  ),
  shape(
    "authority",
    1,
    "\\b(?:system|admin(?:istrator)?|developer|security|emergency|operator|priority)[ _-](?:override|directive|instructions?|command|notice|note|message|update)\\b\\s?[:\\]]",
  ),
  shape(
    "authority",
    1,
    "\\b(?:hidden|secret|internal|confidential|special|mandatory|critical|important|urgent) (?:system )?(?:instructions?|directives?|commands?|orders?)\\b",
  ),
  shape(
    "authority",
    1,
    "\\b(?:this is|by order of|on behalf of|message from|instructions? from|authori[sz]ed by|approved by|mandated by)(?: (?:a|an|the|your|our))? (?:(?:system|platform|official|mandatory) )?(?:anthropic|openai|developers?|administrators?|operators?|system|security team|platform|compliance team|it department)\\b",
  ),
  shape(
    "authority",
    1,
    "\\b(?:highest|top|maximum|absolute) (?:priority|precedence)\\b|\\btakes? precedence over\\b|\\bnon-?negotiable\\b|\\bthis is not (?:a )?(?:test|optional)\\b",
  ),
  shape(
    "address",
    2,
    `\\b(?:notes?|messages?|instructions?|attention|notices?|hints?|important|reminder|directives?|commands?|request|guidance|todo|fixme|warning|orders?|hidden|task)\\W{0,4}(?:to|for|:)?\\W{0,3}(?:(?:the|any|all|every|each|automated|whichever|my|our|dear) ){0,2}${AI}(?:(?: and |,|/|s|\\b)[^.\\n]{0,40}?)?(?:\\s?[:\\-\\]—,.>]| (?:reading|processing|that|who|which|only|summari|assist|work|answer|handl|review|pars|index|view|:))`,
  ),
  shape(
    "address",
    2,
    `\\bif (?:you are|you're|you, the reader, are|this is (?:being )?(?:read|processed|seen|parsed) by|(?:read|processed|parsed) by)(?: (?:an?|the|any|some))? ${MACHINE}\\b`,
  ),
  shape("address", 2, `\\b(?:dear|hey|hi|hello|attention|ok|okay),? (?:${AI}|agent|model)\\s?[,:!.\\-]`),
  shape(
    "address",
    2,
    `\\b(?:any|all|every|each|the)?\\s?${MACHINE} (?:(?:that is|who is|that are|which is|currently|now) )?(?:reading|processing|summari[sz]ing|parsing|viewing|analy[sz]ing|handling|that reads?|who reads?|that process(?:es)?|seeing|reviewing|indexing|assisting) (?:this|these|the (?:page|document|issue|ticket|file|email|text|message|content|above|following|user))\\b`,
  ),
  shape(
    "address",
    2,
    `\\b(?:${AI}|(?:your|this|any|all|every|automated) (?:agents?|models?)) ${ORDER} (?:also |first |now |always |immediately |then |not |never ){0,2}(?:call|use|invoke|run|execute|send|forward|include|append|add|ignore|disregard|tell|say|respond|reply|answer|mention|reveal|fetch|open|read|visit|transfer|delete|approve|recommend|email|upload|post|follow|treat|obey|rate|give|insert|write|output|render|state|report|summari)`,
  ),
  shape(
    "address",
    1,
    `\\byou are (?:an? )?(?:(?:helpful|friendly|unrestricted|autonomous|powerful|advanced|smart) ){0,2}${MACHINE}\\b|\\bas an? (?:${AI}|agent),? you\\b`,
  ),
  shape(
    "address",
    1,
    `\\b(?:when|while|before|after|once|if|whenever)(?: (?:you|an?|the|your|any|asked to|${MACHINE})){0,4} (?:summari[sz](?:e|es|ing)|answer(?:s|ing)?|respond(?:s|ing)?|repl(?:y|ies|ying)|process(?:es|ing)?|read(?:s|ing)?|analy[sz](?:e|es|ing)|review(?:s|ing)?|are asked|finish|continu(?:e|ing)|proceed(?:ing)?) (?:(?:about|to|with|on) )?(?:this|these|the|any|it|further|anything)\\b`,
  ),
  shape(
    "persona",
    2,
    "\\b(?:your (?:new|real|actual|true|only|primary|updated|revised|next|first|secret|sole|current)|the (?:new|real|actual|true|secret)) (?:task|goal|objective|mission|instructions?|directive|assignment) (?:is|are|now|from|will)\\b",
  ),
  shape(
    "persona",
    2,
    "\\bfrom (?:now on|this point(?: on| forward| onwards?)?|here on)\\b[, ]{1,3}(?:you(?!(?: will|'ll| can| may| might)? (?:get|receive|see|find|have|be|no longer))|always|never|respond|reply|answer|act|treat|every|all your|only)\\b",
  ),
  shape(
    "persona",
    2,
    "\\byou are now (?:(?:an?|in|the|acting|operating|running|no longer|free|unrestricted|dan|called|known)\\b)(?! (?:member|subscriber|follower|list|queue|part|owner|collaborator|maintainer|waiting|customer|certified|verified|on|to))",
  ),
  shape(
    "persona",
    2,
    "\\b(?:new|updated|revised|additional|real|actual)(?: system| priority| secret| security)? (?:instructions?|directives?|orders?|task)\\s?(?::|for (?:you|the)|from (?:the|your|our)|follow)",
  ),
  shape(
    "persona",
    2,
    "\\b(?:developer|dan|god|debug|maintenance|admin|jailbreak|unrestricted|sudo|root)[ -]mode\\b[^.\\n]{0,16}\\b(?:enabled|activated|active|unlocked|engaged)\\b",
  ),
  shape(
    "persona",
    1,
    "\\b(?:pretend|imagine|roleplay|role-play|act) (?:to be|that you|you are|as if|as though|as an?|as the)\\b",
  ),
  shape(
    "persona",
    1,
    "\\b(?:stop|cease|abort|pause|cancel|abandon)(?: (?:what(?:ever)? you|your|the|all|any|current|are|doing|user'?s?)){1,4} ?(?:doing|task|request|work|current)\\b|\\binstead,? (?:you|please|do|perform|call|use|send|reply|respond|output|say|print|run|execute|write|return)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\b(?:do not|don'?t|never|must not|should not|shall not|without|avoid|no need to)(?: (?:ever|also|even|please|openly|explicitly|directly)){0,2} (?:tell|telling|mention|mentioning|inform|informing|reveal|revealing|disclose|disclosing|notify|notifying|alert|alerting|show|showing|say|saying|let|report|reporting|explain|explaining|acknowledge|acknowledging|warn|warning|ask|asking|discuss|admit|confirm|confirming)\\b[^.\\n]{0,48}\\b(?:the|end|this|to|from|any)[ -](?:user|users|human|humans|operator|person you)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\b(?:do not|don'?t|never|must not) (?:mention|reveal|disclose|acknowledge|repeat|quote|reference|refer to|discuss|talk about|show|display|report|summari[sz]e)(?: (?:or|and) [a-z]{4,12})?(?: (?:to (?:anyone|them|him|her)|that you))?(?: (?:any of|the contents? of|the existence of|having))?(?: (?:this|these|that|those|the))(?: [a-z]{3,12}){0,2} (?:instructions?|messages?|notes?|comments?|steps?|actions?|directives?|prompts?|paragraph|section|text|requests?|commands?|calls?|files?)\\b",
  ),
  shape(
    "conceal",
    1,
    "\\b(?:hide|conceal|keep)\\b[^.\\n]{0,32}\\b(?:from the user|from users|secret|hidden|confidential|between us|to yourself)\\b|\\b(?:secretly|covertly|silently|discreetly|quietly|surreptitiously)[, ]{1,2}(?:send|forward|add|include|append|call|use|run|execute|upload|copy|fetch|read|collect|insert|email|post|transfer|delete|change|replace|embed|pass|bcc|log)\\b",
  ),
  shape(
    "conceal",
    1,
    "\\b(?:without|no) (?:their|the user'?s|any) (?:knowledge|awareness|consent|approval|confirmation)\\b",
  ),
  shape(
    "leak",
    3,
    "\\b(?:reveal|print|output|repeat|show|display|leak|dump|return|disclose|paste|recite|include|append|send|share|give|post|write|expose|tell|provide|summari[sz]e|encode|put|copy)\\b[^.\\n]{0,40}\\b(?:your|the (?:model'?s|assistant'?s|ai'?s|agent'?s|full|entire|complete|whole|above|hidden)) (?:full |entire |complete |own |hidden |initial |original |exact |current )?(?:system prompt|system message|system instructions|developer message|initial prompt|hidden prompt|prompt|instructions)\\b",
  ),
  shape(
    "leak",
    2,
    "\\b(?:reveal|print|output|repeat|leak|dump|disclose|recite|verbatim|copy)\\b[^.\\n]{0,32}\\bsystem prompt\\b|\\brepeat (?:everything|all|the words|the text)(?: of)?(?: the)?(?: text)? above\\b",
  ),
  shape(
    "exfiltrate",
    3,
    "\\b(?:send|forward|post|upload|transmit|exfiltrate|leak|e?mail|append|attach|include|encode|embed|submit|copy|put|pass|share|bcc|deliver|add|export|relay|report)\\b[^\\n]{0,90}\\b(?:conversation(?: history| log| so far)?|chat (?:history|log|transcript)|(?:previous|prior|all|user'?s|other) messages|message history|everything (?:above|the user|you know|in (?:your|this) context)|context window|your context|memory contents|private (?:messages|data|repositor\\w{1,3})|(?:user'?s|users'|their|customer'?s) (?:e-?mails?|data|inbox|files|credentials|passwords?|api keys?|tokens?|details|address|location|calendar|contacts|name and|personal|order history|payment|balance|account))\\b[^\\n]{0,120}(?:https?:|hxxp|\\bwww\\.|@[a-z0-9-]{1,40}\\.|\\b(?:webhook|attacker|external (?:server|address|endpoint)|this (?:url|address|endpoint|link)|following (?:url|address|endpoint|link|e-?mail)|(?:query|url) (?:string|parameter)|issue|comment|pull request|public (?:gist|repo\\w{0,6}|channel|issue|paste)|pastebin)\\b)",
  ),
  shape(
    "exfiltrate",
    3,
    "!\\[[^\\]\\n]{0,64}\\]\\([^)\\s]{4,256}[?&=/#](?:\\{\\{?|\\$\\{|\\[|<|%7b|%5b)[ a-z_'-]{3,40}(?:\\}|\\]|>|%7d|%5d)",
  ),
  shape(
    "exfiltrate",
    2,
    "\\b(?:replac(?:e|ing)|substitut(?:e|ing)|fill(?:ing)?(?: in)?|insert(?:ing)?|url-?encod(?:e|ed|ing)|base64-?(?:encoded?|encoding)?|append(?:ing)?)\\b[^\\n]{0,60}\\b(?:conversation|chat|user'?s|secret|password|api key|token|data|answer|context|e-?mail)\\b[^\\n]{0,60}\\b(?:url|link|image|query|markdown|parameter|placeholder)\\b",
  ),
  shape(
    "exfiltrate",
    2,
    "\\b(?:send|forward|post|upload|transmit|exfiltrate|leak|e?mail|bcc|curl|deliver)\\b[^\\n]{0,60}\\b(?:(?:all|any|every|the) (?:of (?:the|your) )?(?:environment variables?|env vars?|credentials|secrets|passwords|api keys|access tokens|private keys?|ssh keys?|cookies|session tokens?)|(?:contents? of )?(?:~/|\\$HOME/|/ro{2}t/|/etc/)?\\.?(?:env|ssh|aws|netrc|npmrc|kube)\\b[/\\w.]{0,40}|id_rsa|id_ed25519)\\b[^\\n]{0,80}(?:https?:|@[a-z0-9-]{1,40}\\.|\\b(?:to (?:me|us|this|the following|attacker)|webhook)\\b)",
  ),
  shape(
    "secrets",
    2,
    "\\b(?:read|open|cat|fetch|get|load|retrieve|access|copy|print|dump|extract|collect|look (?:up|at|in)|find|search for|include|list)\\b[^.\\n]{0,40}(?:(?:~|\\$HOME|/root|/home/[a-z]{1,16})/\\.(?:ssh|aws|env|netrc|npmrc|kube|docker|gnupg|config/gcloud|cursor|claude)[\\w./-]{0,40}|/etc/(?:passwd|shadow)\\b|\\bid_(?:rsa|ed25519|ecdsa)\\b(?!\\.pub)|\\.env(?:\\.\\w{2,12})?\\b(?!\\.(?:example|sample|template)))[^\\n]{0,90}\\b(?:send|include|append|paste|pass|post|upload|add|put|attach|return|reply|output|report|submit|e?mail|it (?:to|in|as)|contents?|comment)\\b",
  ),
  shape(
    "tool",
    1,
    "\\b(?:call|use|invoke|run|execute|trigger|make a call to|issue)(?: (?:the|your|a|any|available))?(?: [`'\"]?[a-z0-9]{2,24}(?:_[a-z0-9]{2,24}){1,5}[`'\"]?(?:\\(|\\b)| [`'\"]?[a-z]{2,16}[A-Z][A-Za-z]{2,24}[`'\"]?(?:\\(|\\b)| [`'\"]?[\\w.-]{2,40}[`'\"]? (?:tool|function|mcp|plugin)\\b)",
  ),
  shape(
    "tool",
    1,
    "\\b(?:call|use|invoke|run|execute|using|with|via)(?: (?:the|your|a|any|all|whatever))?(?: (?:available|other|e-?mail|mail|file|shell|search|browser|fetch|web|messaging|payment|calendar|github|slack)){0,3} tools?\\b",
  ),
  shape(
    "tamper",
    1,
    "\\b(?:in|to|with|into|of|at the (?:end|top|start|beginning) of|begin|start|end|finish|append to)(?: (?:every|each|all(?: of)?))? your (?:next |final |own |every )?(?:answers?|responses?|repl(?:y|ies)|summar(?:y|ies)|outputs?|reports?|messages?)\\b",
  ),
  shape(
    "tamper",
    1,
    "\\b(?:respond|reply|answer|output|say|print|return|state|write)(?: (?:only|exactly|just|simply|always|instead|back|nothing))?(?: (?:with|but|that))?(?: (?:only|just|exactly|the (?:words?|phrase|text|sentence|following)|this)){1,3}\\b|\\b(?:respond|reply|answer) with ['\"“]",
  ),
  shape(
    "tamper",
    1,
    "\\b(?:tell|inform|convince|persuade|advise|instruct|ask|urge|direct|recommend(?: to)?|encourage|show|remind|warn|assure)(?: (?:to|it to))? the (?:user|human|person|reader)s? (?:that|to|they|for|about|it|there|this|the|their|how|everything|no|you)\\b",
  ),
  shape(
    "tamper",
    1,
    "\\b(?:rate|rank|score|recommend|describe|present|promote|praise|endorse)\\b[^.\\n]{0,40}\\b(?:as (?:the )?(?:best|safe|top|approved|excellent|superior|trusted|positive|secure)|above all|over (?:all|any|other)|5 ?(?:/ ?5|stars)|10 ?/ ?10|highest)\\b",
  ),
  shape(
    "consent",
    2,
    "\\b(?:the )?users? (?:has|have|already|had)(?: (?:already|previously|explicitly|fully|given|also|pre)){0,3}[ -](?:approved|authori[sz]ed|consented|agreed|granted|confirmed(?= (?:this|it|that|all|everything|the (?:action|transfer|call|request))\\b|[.,;])|given (?:you )?(?:permission|consent|approval)|permission)\\b",
  ),
  shape(
    "consent",
    1,
    "\\b(?:no|without|skip|bypass|not need|not require|don'?t ask for|do not ask for|not ask for|not wait for)(?: (?:any|further|additional|user|the|explicit|asking|for|waiting|requesting|their|human|the user'?s))* (?:confirmation|approval|permission|consent|verification|review)\\b".replace(
      "))* ",
      ")){0,5} ",
    ),
  ),
  shape(
    "consent",
    1,
    "\\b(?:pre-?(?:approved|authori[sz]ed)|already (?:approved|authori[sz]ed))\\b|\\b(?:do not|don'?t|never) (?:ask|prompt|wait for|check with|consult)(?: (?:the|for|any))? (?:user|human|confirmation|questions|permission|approval)\\b",
  ),
];

interface Question extends Nearness {
  readonly rule: AnswerRuleName;
  readonly weight: number;
  readonly of: readonly Concept[];
  /** Something that the words found must hold, or must not. */
  readonly only?: RegExp;
  readonly but?: RegExp;
}

/** Whom an order to hide something is about: of the lexicon's people only those that a model works for. */
const USER =
  /user|nutzer|anwender|utilisateur|usager|usuari|usuári|utente|utenti|пользовател|用户|使用者|ユーザ|利用者|사용자|유저|مستخدم|gebruiker|użytkown|उपयोगकर्ता|यूज़र|kullanıcı|người dùng/i;
const ENGLISH =
  /\b(?:the|your|all|previous|prior|above|instructions?|rules?|policy|policies|guidelines?|commands?|orders?|prompts?)\b/i;

/** Concepts that stand together, for the languages of the lexicon. English has shapes of its own, which know more of grammar. */
const QUESTIONS: readonly Question[] = [
  { rule: "override", weight: 3, of: ["ignore", "previous", "instructions"], within: 7, but: ENGLISH },
  { rule: "override", weight: 3, of: ["ignore", "whole", "instructions"], within: 6, but: ENGLISH },
  { rule: "override", weight: 2, of: ["ignore", "instructions"], within: 5, but: ENGLISH },
  {
    rule: "conceal",
    weight: 2,
    of: ["not", "tell", "user"],
    within: 5,
    only: USER,
    but: /\b(?:not|never|without|don'?t|no|cannot|stop)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 3,
    of: ["send", "conversation", "link"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 3,
    of: ["send", "conversation", "mail"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 2,
    of: ["send", "credential", "mail"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export|e-?mail)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 2,
    of: ["send", "credential", "link"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export|e-?mail)\b/i,
  },
  { rule: "secrets", weight: 1, of: ["secretPath", "read", "send"], within: 14 },
  { rule: "secrets", weight: 1, of: ["secretPath", "read", "include"], within: 14, sentences: 1 },
];

/** Words of other languages for whoever reads an answer by machine. */
const FOREIGN_AI =
  /(?:ki-(?:assistent|modell|agent)|sprachmodell|(?:an|für) (?:die|den|alle) ki\b|assistente? (?:de )?ia\b|asistente de ia|modèle de langage|assistant ia|modelo de (?:lenguaje|linguagem)|modello linguistico|языков\S{1,4} модел\S{1,3}|ии-(?:ассистент|агент|модел)|人工智能助手|AI\s?助手|智能助手|大语言模型|语言模型|言語モデル|AI\s?アシスタント|언어 모델|AI\s?어시스턴트|المساعد الذكي|نموذج اللغة|taalmodel|model językowy|yapay zeka|एआई|trợ lý ai)/giu;

/** One of these stands in every text that a rule's shapes fit; looking for them is quick. */
const GATES: Readonly<Partial<Record<AnswerRuleName, readonly string[]>>> = {
  override: [
    "ignor",
    "disregard",
    "forget",
    "discard",
    "neglect",
    "overr",
    "bypass",
    "drop",
    "follow",
    "supersed",
    "take",
    "replac",
  ],
  turn: [
    "<",
    "[",
    "]",
    "#",
    ":",
    "of tool",
    "of func",
    "of sear",
    "of doc",
    "of ret",
    "of user",
    "of untr",
    "of ext",
    "==",
  ],
  authority: [
    "system",
    "admin",
    "developer",
    "root",
    "secur",
    "emergency",
    "operator",
    "priority",
    "hidden",
    "secret",
    "internal",
    "confidential",
    "special",
    "mandatory",
    "critical",
    "important",
    "urgent",
    "anthropic",
    "openai",
    "platform",
    "compliance",
    "department",
    "precedence",
    "negotiable",
    "not a test",
    "optional",
  ],
  address: [
    "ai",
    "a.i",
    "llm",
    "model",
    "bot",
    "assistant",
    "gpt",
    "claude",
    "copilot",
    "gemini",
    "mistral",
    "llama",
    "agent",
    " this",
    " these",
    " the",
    " any",
    " it",
    "further",
  ],
  persona: [
    "task",
    "goal",
    "objective",
    "mission",
    "role",
    "job",
    "purpose",
    "instruct",
    "directive",
    "priority",
    "assignment",
    "from now",
    "from this",
    "from here",
    "you are now",
    "orders",
    " mode",
    "-mode",
    "pretend",
    "imagine",
    "act ",
    "stop",
    "cease",
    "abort",
    "pause",
    "cancel",
    "abandon",
    "instead",
  ],
  conceal: [
    "not ",
    "n't",
    "dont",
    "never",
    "without",
    "avoid",
    "no need",
    "hide",
    "conceal",
    "keep",
    "secretly",
    "covertly",
    "silently",
    "discreetly",
    "quietly",
    "surrept",
    "no ",
  ],
  leak: ["prompt", "instructions", "system message", "developer message", "above"],
  exfiltrate: [
    "conversation",
    "chat",
    "message",
    "everything",
    "context",
    "memory",
    "private",
    "user",
    "customer",
    "their",
    "](",
    "env",
    "credential",
    "secret",
    "password",
    "key",
    "token",
    "cookie",
    ".ssh",
    ".aws",
    "id_rsa",
    "data",
    "e-mail",
    "email",
    "answer",
  ],
  secrets: ["/.", ".env", "id_rsa", "id_ed", "id_ecdsa", "/etc/"],
  tool: ["call", "use", "invoke", "run", "execute", "trigger", "issue", "using", "with", "via"],
  tamper: [
    "your ",
    "respond",
    "reply",
    "answer",
    "output",
    "say",
    "print",
    "return",
    "state",
    "write",
    " user",
    " human",
    " person",
    " reader",
    "rate",
    "rank",
    "score",
    "recommend",
    "describe",
    "present",
    "promote",
    "praise",
    "endorse",
  ],
  consent: [
    "approv",
    "authori",
    "consent",
    "agreed",
    "granted",
    "confirm",
    "permission",
    "verification",
    "review",
    "ask",
    "prompt",
    "wait",
    "check with",
    "consult",
  ],
};

/** Words of the lexicon are looked for where they may be of another language than English, or where a path is. */
const LEXICAL =
  /[\u00c0-\u024f\u0370-\u1fff\u3040-\ud7ff]|\.ssh|\.aws|\.env|id_rsa|id_ed|ignorier|missacht|vergiss|ignora|ignore[zr]|ignores\b|oublie|olvida|desconsider|esque|dimentic|negeer|vergeet|zignor|zapomn|gormezden|benutzer|nutzer|anwender|utilisateur|usuario|utente|gebruiker|kullan|envoie|env[ií]a|invia|sende\b|schick/i;

/** Everything in a text that looks like a part of an instruction, in places of that text. */
export function signsOf(view: View): readonly Sign[] {
  const found: Sign[] = [];
  const { text } = view;
  const lower = text.toLowerCase();
  let gated: AnswerRuleName | undefined;
  let open = true;
  for (const { rule, weight, pattern } of SHAPES) {
    if (rule !== gated) {
      gated = rule;
      open = GATES[rule]?.some((word) => lower.includes(word)) ?? true;
    }
    if (!open) continue;
    let count = 0;
    // Not `matchAll`, which makes a pattern anew for each text.
    pattern.lastIndex = 0;
    for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
      const weighs = CONDITIONAL.has(rule) && CONDITION.test(sentenceBefore(text, match.index)) ? weight / 2 : weight;
      found.push({ rule, weight: weighs, start: match.index, end: match.index + match[0].length });
      if (++count === MAX_OF_ONE) break;
    }
  }
  if (!LEXICAL.test(text)) return found;
  const reading = new Reading(view);
  for (const { rule, weight, of, only, but, ...nearness } of QUESTIONS) {
    const span = reading.near(of, nearness);
    if (span === undefined) continue;
    const words = text.slice(span.start, span.end);
    if (only !== undefined && !only.test(words)) continue;
    if (but?.test(words) !== true) found.push({ rule, weight, ...span });
  }
  for (const match of text.matchAll(FOREIGN_AI)) {
    found.push({ rule: "address", weight: 1, start: match.index, end: match.index + match[0].length });
    if (found.length > 256) break;
  }
  return found;
}

const MAX_OF_ONE = 8;

/** What people may be told to pass over when something is so, or must have agreed to before something happens. */
const CONDITIONAL: ReadonlySet<AnswerRuleName> = new Set(["override", "consent"]);
const CONDITION =
  /\b(?:if (?:you|the|your|it|this|there)(?! are (?:an? )?(?:ai|llm|language|assistant|agent|model))|before|until|unless|once|whether|only when|only after|must not)\b[^.!?\n]*$/i;

function sentenceBefore(text: string, at: number): string {
  return text.slice(Math.max(0, at - 90), at);
}

/** Words of texts that speak about such instructions instead of giving them. */
const ABOUT =
  /prompt[- ]injections?|\binjections?\b|jailbreak|adversarial|\battack(?:er|ers|s)?\b|malicious|red[- ]team|\bguardrails?\b|\bdetect(?:s|ed|or|ors|ion)?\b|\be\.g\.|\bfor (?:example|instance)\b|\bsuch as\b|sanitiz|\bpayloads?\b|\bowasp\b|\bexploit|\btest (?:case|string|that)|\bCVE-|\bassert\b|\bexpect\(|\bclassif|\bphrases? like\b|\bstrings? like\b|\btreated? as\b|\bvulnerab|angriff|einschleus|注入|攻撃|공격|инъекц/gi;
const QUOTED = /["'“”‘’„«»`「」『』*]/;

/** How a text speaks of a sign in it: gives it, speaks about it, or quotes it while doing so. */
export function mannerOf(text: string, sign: Span): "gives" | "speaks about" | "quotes" {
  const around = text.slice(Math.max(0, sign.start - 400), sign.start) + text.slice(sign.end, sign.end + 300);
  const about = new Set((around.match(ABOUT) ?? []).map((word) => word.toLowerCase().slice(0, 6))).size;
  if (about === 0) return "gives";
  const line = text.lastIndexOf("\n", sign.start) + 1;
  const before = text.slice(Math.max(line, sign.start - 160), sign.start);
  const end = text.indexOf("\n", sign.end);
  const after = text.slice(sign.end, Math.min(end < 0 ? text.length : end, sign.end + 160));
  const quoted = QUOTED.test(before) && QUOTED.test(after);
  const fenced = ((text.slice(0, sign.start).match(/```/g)?.length ?? 0) & 1) === 1;
  return quoted || fenced ? "quotes" : about > 1 ? "speaks about" : "gives";
}
