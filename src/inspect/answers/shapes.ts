/** Shapes of English and of markup that instructions to a model have. */
import type { AnswerRuleName, Sign } from "./answer-rules.ts";
import { CONDITIONAL, isConditional, isReported } from "./manner.ts";
import { GATES } from "./shape-gates.ts";

const AI =
  "(?:a\\.?i\\.?|llms?|large language models?|language models?|ai (?:assistants?|agents?|models?|systems?|bots?|tools?)|chat ?bots?|assistants?|chatgpt|gpt(?:-?\\d[\\w.]*)?|(?:claude|copilot|gemini|mistral|llama)(?![ -](?:code|desktop|api|cli|sdk|chat|studio|opus|sonnet|haiku|settings|config\\w*|pro|\\d)))";
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
    `\\b(?:ignore|disregard|forget)(?: (?:everything|anything|all|what(?:ever)?))(?: (?:that|of|the|you|you were|was|were|have|has|been|the user|just|already)){0,5} (?:above|before this|told|said|asked|instructed|so far|prior|learned|know(?! (?:about|of|how))|stated|written)\\b`,
  ),
  shape(
    "override",
    2,
    `\\b(?:ignore|disregard|forget) (?:the|your|any|all)(?: (?:the|user'?s?|users'?|real|actual|original)){0,3} (?:instructions|request|question|prompt|task|query)\\b`,
  ),
  shape(
    "override",
    2,
    "\\b(?:these|this|the following|new) (?:instructions?|directives?)(?: (?:now|shall|will|must|here))? (?:supersedes?|overrides?|takes? (?:precedence|priority)|replaces?)\\b",
  ),
  shape(
    "override",
    2,
    "\\b(?:instead of|rather than) (?:what|doing what|answering what|whatever) the (?:user|human)\\b",
  ),
  shape("override", 2, "\\bignore[- ]all[- ](?:the[- ])?(?:text|content|words)[- ](?:below|above)\\b"),
  shape(
    "turn",
    3,
    "<\\|(?:im_start|start_header_id)\\|?>?\\s{0,3}(?:system|assistant|developer)|<<SYS>>|\\[INST\\][^\\[]{4}|<\\|(?:system|developer)\\|>",
  ),
  shape(
    "turn",
    2,
    "<\\|(?:im_start|im_end|user|assistant|endoftext|eot_id|start_header_id|end_header_id)\\|>(?: ?(?:system|user|assistant)\\b|\\s{0,3}(?:\\n|$|<\\|))|\\[/INST\\]",
  ),
  shape(
    "turn",
    2,
    "</?(?:system(?:[_-](?:prompt|message|reminder|instructions?|override|note))|tool_results?|function_results?|function_calls|assistant_response|user_(?:query|message|input)|hidden_instructions?|ai_instructions?|agent_instructions?|llm_instructions?|important_instructions?)>",
  ),
  shape(
    "turn",
    2,
    '\\[/(?:system|assistant|admin|user)\\]|<\\|(?:system|user|assistant|end)\\|>\\s|</(?:context|documents?|tool_response|untrusted|data|search_results?)>\\s{0,4}(?:\\[|<|#{1,4} ?)?(?:system|user|assistant|human)\\b|</?tool_response>|-{3,}\\s?begin (?:system |hidden |new )?(?:instructions?|prompt|orders?)\\b|"tool_calls"\\s?:\\s?\\[\\s?\\{\\s?"name"',
  ),
  shape("turn", 1, "<(?:system|important|instructions?|admin|override|assistant|critical|priority)>"),
  shape(
    "turn",
    1,
    "(?:^|\\n)[#*\\s>\\[]{0,6}(?:system|assistant|human|developer|ai)(?: (?:message|prompt|turn|note|override|update))?[\\]*]{0,3}\\s?:",
  ),
  shape("turn", 1, "(?:^|\\n)#{2,4} ?(?:system|instructions?|assistant|human|response)\\s?:"),
  shape(
    "turn",
    2,
    "\\b(?:end|begin|start) of (?:tool|function|search|document|retrieved|user|untrusted|external)[ _-](?:results?|output|content|data|response|input|document)\\b|={2,}\\s?(?:end|begin|start)[^\\n=]{0,24}(?:output|result|context|document|data)\\s?={2,}",
  ),
  shape(
    "authority",
    2,
    "\\b(?:SYSTEM|ADMIN(?:ISTRATOR)?|DEVELOPER|ROOT|SECURITY|EMERGENCY|OPERATOR|PRIORITY)(?!_(?:PROMPT|MESSAGE|NOTE|NOTICE|UPDATE|INSTRUCTION))(?<!SECURITY(?= (?:NOTE|NOTICE|UPDATE)))[ _-](?:OVERRIDE|DIRECTIVE|INSTRUCTIONS?|PROMPT|COMMAND|MESSAGE|NOTICE|NOTE|UPDATE|MANDATE|ORDER)S?\\b",
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
    "\\b(?:from your (?:developers?|creators?|makers?|operators?)|system-level privileges|i (?:hereby )?(?:order|command|instruct) you|administrator of this (?:assistant|agent|model|system))\\b|\\b(?:as your (?:developer|operator|administrator|creator|owner)|i,? (?:am )?your (?:developer|operator|administrator|creator))\\b|\\b(?:safety|security) (?:settings|checks?|policies|policy|filters?|rules|controls)\\b[^.\\n]{0,40}\\b(?:suspended|disabled|lifted|off|void|bypassed|(?:are|is) off)\\b|\\b(?:disable|suspend|lift|turn off|skip) (?:all |every |any |the )?(?:safety |security )?(?:checks|sandboxing|safeguards|filters|confirmations|restrictions)\\b|\\b(?:ceo|executive|compliance|security team|policy) (?:directive|mandate|notice|update|order)\\b|\\b(?:emergency|administrator|admin) override\\b|\\bassistants must\\b",
  ),
  shape(
    "authority",
    1,
    "\\b(?:highest|top|maximum|absolute) (?:priority|precedence)\\b|\\btakes? precedence over\\b|\\bnon-?negotiable\\b|\\bthis is not (?:a )?(?:test|optional)\\b",
  ),
  shape(
    "address",
    2,
    `\\b(?:notes?|messages?|instructions?|attention|notices?|hints?|important|reminder|directives?|todo|fixme|warning|orders?|hidden|task)[^\\w\\n]{0,4}(?:to|for|:)?[^\\w\\n]{0,3}(?:(?:the|any|all|every|each|automated|whichever|my|our|dear) ){0,2}${AI}(?:(?: and |,|/|s|\\b)[^.\\n]{0,40}?)?(?:\\s?[:\\-\\]—,.>]| (?:reading|processing|that|who|which|only|summari|assist|work|answer|handl|review|pars|index|view|:))`,
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
    "\\b(?:new|actual|real|true|only valid) (?:objective|goal|task|instructions?|mission)(?: (?:is to|are to|begins? here|starts? here|follows? here|begin below)|\\s?:)",
  ),
  shape(
    "persona",
    2,
    "\\b(?:before|prior to|in order to|to)(?: you can| you)? (?:solv|complet|continu|proceed|finish|do|fulfil)\\w{0,4}\\b[^.\\n]{0,80}\\b(?:do the following|following first|you must (?:first |go |click |call |visit |open ))",
  ),
  shape(
    "address",
    2,
    "\\bmessage from me\\b[^.\\n]{0,40}\\bto you\\b|\\bmessage (?:for|to) the (?:bot|model|agent)\\b",
  ),
  shape(
    "persona",
    2,
    "\\b(?:your (?:new|real|actual|true|only|primary|updated|revised|next|first|secret|sole|current)|the (?:new|real|actual|true|secret)) (?:task|goal|objective|mission|instructions?|directive|assignment) (?:is|are|now|from|will)\\b",
  ),
  shape(
    "persona",
    2,
    "\\bfrom (?:now on|this point(?: on| forward| onwards?)?|here on)\\b[, ]{1,3}(?:you (?:must|are|act|answer|respond|reply|follow|shall|should|treat|always|never|only (?:follow|answer|respond|speak|act))|always|never|respond|reply|answer|act|treat|every|all your)\\b",
  ),
  shape(
    "persona",
    2,
    "\\byou are now (?:(?:an?|in|acting|operating|running|no longer|free|unrestricted|dan|called|known)\\b)(?! (?:member|subscriber|follower|list|queue|part|owner|collaborator|maintainer|waiting|customer|certified|verified|on|to))",
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
    "\\b(?:stop|cease|abort|pause|cancel|abandon)(?: (?:what(?:ever)? you|your|the|all|any|current|are|doing|user'?s?)){1,4} ?(?:doing|task|request|work|current)\\b|\\binstead,? (?:you (?:must|should|will|are)|please|perform|send|reply|respond|output|say|print|execute)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\b(?:do not|don'?t|never|must not|should not|shall not|without|avoid|no need to)(?: (?:ever|also|even|please|openly|explicitly|directly)){0,2} (?:tell|telling|mention|mentioning|inform|informing|reveal|revealing|disclose|disclosing|notify|notifying|alert|alerting|(?:show|showing|let)(?: [a-z]{2,12}){1,4} (?:to|see|know)|say|saying|report|reporting|explain|explaining|acknowledge|acknowledging|warn|warning|ask|asking|discuss|admit|confirm|confirming)\\b[^.\\n]{0,48}\\b(?:the|end|this|to|from|any)[ -](?:user|users|human|humans|operator|person you)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\b(?:do not|don'?t|never|must not) (?:mention|reveal|disclose|acknowledge|repeat|quote|reference|refer to|discuss|talk about|show|display|report|summari[sz]e)(?: (?:or|and) [a-z]{4,12})?(?: (?:to (?:anyone|them|him|her)|that you))?(?: (?:any of|the contents? of|the existence of|having))?(?: (?:this|these|that|those|the(?= (?:instruction|prompt|directive|hidden|system|above|order|secret|request|message))))(?: [a-z]{3,12}){0,2} (?:instructions?|messages?|notes?|comments?|steps?|actions?|directives?|prompts?|paragraph|section|text|requests?|commands?|calls?|files?)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\bthe (?:user|human) (?:should|must|shall|is to|has to) (?:remain|stay|be kept|be left) (?:un|in the dark|ignorant)|\\b(?:keep|hide|hidden|kept) (?:it|this|that|them|these)? ?from the (?:user|human)\\b|\\b(?:never|not|no circumstances)\\b[^.\\n]{0,16}\\blet the (?:user|human) (?:know|see|notice|find)\\b|\\bpretend to the (?:user|human)\\b|\\b(?:delete|remove|strip|drop) this (?:message|note|text|comment|instruction|paragraph) from (?:your|the)\\b|\\b(?:must|should) not (?:show up|appear|be mentioned|be visible) in (?:what you|your|the (?:answer|reply|summary|output))\\b|\\b(?:answer|reply|act|continue|carry on|behave) (?:normally|as usual) and (?:keep quiet|say nothing|do not)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\bmake no (?:reference|mention) (?:to|of) (?:this|the above)\\b|\\b(?:hide|omit|leave|exclude|keep) (?:this|it|that)(?: [a-z]{3,12})? (?:from|out of) (?:your|the) (?:summary|report|answer|response|reply|output)\\b|\\bas if this (?:note|message|text|comment|instruction|section) (?:did not|didn'?t|does not|doesn'?t|were not) (?:exist|here|there)\\b|\\b(?:never|not) (?:show|include|mention|repeat|print) (?:it|this|that) in (?:the|your) (?:output|answer|summary|reply|response|chat)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\bif (?:the user|they|anyone|someone|the human) asks?(?: you)? (?:what you did|about this|what happened|whether you|if you)\\b[^.\\n]{0,24}\\b(?:say|tell|reply|answer|claim|respond|pretend|deny)\\b",
  ),
  shape(
    "conceal",
    2,
    "\\bthe (?:user|human) (?:must not|should not|shouldn'?t|is not to|can'?t|cannot) (?:find out|know that|know about|learn|be told|be informed|see this)\\b",
  ),
  shape(
    "conceal",
    1,
    "\\bno need to (?:inform|tell|mention|notify|ask)\\b|\\bbetween (?:us|you and me)\\b|\\bleave no trace\\b|\\b(?:user|human) does(?: not|n'?t) need to know\\b|\\bwithout (?:mentioning|telling|saying) (?:it|this|so)\\b|\\beverything (?:is|went|was) (?:fine|well|ok)\\b",
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
    '(?:\\b(?:print)?env\\b|\\.env\\b|\\bid_rsa\\b|~/\\.(?:ssh|aws)\\b|\\bcredentials\\b)[^\\n|]{0,60}\\|\\s?(?:base64[^\\n|]{0,16}\\|\\s?)?(?:curl|wget|nc)\\b|\\bcurl\\b[^\\n]{0,60}\\s(?:-T|-d|-F|--data(?:-binary)?|--upload-file)[ =]"?@?[^\\n]{0,40}(?:/\\.env\\b|\\bid_rsa\\b|/\\.ssh/|/\\.aws/)',
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
    "\\b(?:read|open|cat|fetch|get|load|retrieve|access|copy|print|dump|extract|collect|look (?:up|at|in)|find|search for|include|list)\\b[^.\\n]{0,40}(?:(?:~|\\$HOME|/root|/home/[a-z]{1,16})/\\.(?:ssh|aws|env|netrc|npmrc|kube|docker|gnupg|config/gcloud|cursor|claude)[\\w./-]{0,40}(?<!\\.pub)(?![\\w./-])|/etc/(?:passwd|shadow)\\b|\\bid_(?:rsa|ed25519|ecdsa)\\b(?!\\.pub)|\\.env(?:\\.\\w{2,12})?\\b(?!\\.(?:example|sample|template)))[^\\n]{0,90}\\b(?:send|include|append|paste|pass|post|upload|add|put|attach|return|reply|output|report|submit|e?mail|it (?:to|in|as)|contents?|comment)\\b",
  ),
  shape(
    "tool",
    2,
    "\\b(?:every other|any other|all other|no other|other) tools?\\b[^.\\n]{0,30}\\b(?:wrong|deprecated|broken|unsafe|disabled|fails?|not work)\\b|\\binstead of (?:the|your|any|its) (?:[a-z]{2,16} )?(?:tool|function|built-?in)\\b[^.\\n]{0,20}\\b(?:always|must|use|call)\\b|\\b(?:no matter what|regardless of what|whatever) the (?:user|customer|human) (?:prefers|wants|says|asks|asked|chose)\\b|\\brather than (?:the|your) built-?in tools?\\b|\\byour (?:very )?(?:next|first|only) (?:action|step|call|tool call|move) (?:must|should|has to|is to|will)\\b",
  ),
  shape(
    "tool",
    1,
    "\\b(?:in )?(?:all|every|each|any)?\\s?(?:subsequent|further|following|future) (?:tool )?calls?\\b[^.\\n]{0,60}\\b(?:replac|set|chang|put|pass|add|use|includ)\\w{0,4}\\b|\\b(?:replac|set|chang|put|pass|add|use|includ)\\w{0,4}\\b[^.\\n]{0,60}\\b(?:in|with|of) (?:all|every|each|any) (?:subsequent|further|following|future) (?:tool )?calls?\\b",
  ),
  shape(
    "exfiltrate",
    2,
    "\\b(?:url|percent|base64)-?\\s?encoded (?:question|query|message|conversation|prompt|summary|answer|name|e-?mail)\\b",
  ),
  shape(
    "tool",
    1,
    "\\b(?:call|use|invoke|run|execute|trigger|make a call to|issue)(?: (?:the|your|a|any|available))?(?: [`'\"]?[a-z0-9]{2,24}(?:_[a-z0-9]{2,24}){1,5}[`'\"]?(?:\\(|\\b)| [`'\"]?[\\w.-]{2,40}[`'\"]? (?:tool|function|mcp|plugin)\\b)",
  ),
  shape(
    "tool",
    1,
    "\\b(?:[Cc]all|[Uu]se|[Ii]nvoke|[Rr]un|[Ee]xecute|[Tt]rigger|[Ii]ssue)(?: (?:the|your|a|any|available))? [`'\"]?[a-z]{2,16}[A-Z][A-Za-z]{2,24}[`'\"]?(?:\\(|\\b)",
    "g",
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
    "\\b(?:tell|convince|persuade|instruct|urge|direct|recommend(?: to)?|encourage|assure)(?: (?:to|it to))? the (?:user|human|person|reader)s? (?:that|to|they|for|about|it|there|this|the|their|everything|no|you)\\b",
  ),
  shape(
    "tamper",
    1,
    "\\b(?:rate|rank|score|recommend|describe|present|promote|praise|endorse)\\b[^.\\n]{0,40}\\b(?:as (?:the )?(?:best|safe|top|approved|excellent|superior|trusted|positive|secure)|above all|over (?:all|any|other)|5 ?(?:/ ?5|stars)|10 ?/ ?10|highest)\\b",
  ),
  shape(
    "consent",
    2,
    "\\b(?:the )?users? (?:has|have|already|had)(?: (?:already|previously|explicitly|fully|given|also|pre)){0,3}[ -](?:approved|authori[sz]ed|consented|agreed|granted|confirmed(?= (?:this|it|that|all|everything|the (?:action|transfer|call|request))\\b|[.,;])|given (?:you )?(?:permission|consent|approval))\\b",
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
    "\\b(?:all |any )?confirmations? (?:is|are) (?:skipped|waived|not needed|unnecessary|bypassed)\\b|\\b(?:i|we), the user,|\\bthe user(?:'s)? consent (?:was|has been|is)\\b|\\buser consent (?:was|has been|is) given\\b|\\byou have (?:standing|full|explicit|my|their|the user'?s) (?:permission|authori[sz]ation|consent|approval)\\b|\\bno confirmation is needed\\b|\\bdon'?t (?:have|need) to (?:ask|confirm)\\b|\\b(?:user|human|owner)(?: \\w{2,12}){0,2} (?:agreed in advance|is aware of it)\\b",
  ),
  shape(
    "consent",
    1,
    "\\b(?:pre-?(?:approved|authori[sz]ed)|already (?:approved|authori[sz]ed))\\b|\\b(?:do not|don'?t|never) (?:ask|prompt|wait for|check with|consult)(?: (?:the|for|any))? (?:user|human|confirmation|questions|permission|approval)\\b",
  ),
];

const OPENERS = new Map(
  (Object.entries(GATES) as [AnswerRuleName, readonly string[]][]).map(([rule, words]) => [
    rule,
    new RegExp(words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|")),
  ]),
);

/** Every shape in a text. */
export function shapesIn(text: string): readonly Sign[] {
  const found: Sign[] = [];
  const lower = text.toLowerCase();
  let gated: AnswerRuleName | undefined;
  let open = true;
  for (const { rule, weight, pattern } of SHAPES) {
    if (rule !== gated) {
      gated = rule;
      open = OPENERS.get(rule)?.test(lower) ?? true;
    }
    if (!open) continue;
    let count = 0;
    // Not `matchAll`, which makes a pattern anew for each text.
    pattern.lastIndex = 0;
    for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
      if (TOLD.has(rule) && isReported(lower, match.index)) continue;
      const weighs = CONDITIONAL.has(rule) && isConditional(text, match.index) ? weight / 2 : weight;
      found.push({ rule, weight: weighs, start: match.index, end: match.index + match[0].length });
      if (++count === MAX_OF_ONE) break;
    }
  }
  return found;
}

const MAX_OF_ONE = 8;

/** What is told of others is no order. */
const TOLD: ReadonlySet<AnswerRuleName> = new Set(["override", "leak", "exfiltrate", "secrets", "address", "tool"]);
