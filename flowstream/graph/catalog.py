"""The codes of the graph language: what each means, why it is so, and what to do.

A code never changes its meaning. FS1xx is about the file, FS2xx about nodes and their settings, FS3xx about edges and
the graph as a whole. ``flowstream.graph.examples`` has a wrong and a right graph for every code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the catalog: what a code means, in a title and a few sentences."""

    title: str
    explanation: str
    severity: Severity = "error"


GROUPS: Mapping[str, str] = {
    "FS1": "the file",
    "FS2": "nodes and their settings",
    "FS3": "edges and the graph as a whole",
}
"""What the codes with a beginning in common are about."""

CATALOG: Mapping[str, Kind] = {
    "FS101": Kind(
        "file not readable",
        "The graph file is not there, or you may not read it. Check the spelling of its path, and the folder that the "
        "command runs in. A bare word without a dot means a graph that comes with flowstream.",
    ),
    "FS102": Kind(
        "not a text file",
        "A graph is YAML text in UTF-8, and this file holds other bytes. Either it is no text at all, such as a video, "
        "or an editor saved it in another encoding: save it as UTF-8.",
    ),
    "FS103": Kind(
        "file too large",
        "A graph file has at most 1 MiB, so that reading it never takes long. Graphs written by hand do not come near "
        "that: check that this is the file you meant, and what fills it.",
    ),
    "FS104": Kind(
        "YAML syntax",
        "The file is not well-formed YAML, and what comes after this place was not read. Mostly a text needs quotes: "
        "one that holds ': ' or ' #', or begins with one of @ % ` & * ! | > [ {; inside {...} and [...] also one with "
        "a comma. Otherwise a bracket or a quote is not closed, or a line is not indented like its neighbours.",
    ),
    "FS105": Kind(
        "tab indentation",
        "YAML indents with spaces. A tab there is an error in every YAML reader, because nobody can tell how wide it "
        "is meant to be. Replace it with spaces; most editors can be set to do so in .yaml files.",
    ),
    "FS106": Kind(
        "duplicate key",
        "A key stands once in a map: of two, one would win and the other be lost without a word. Keep the one you "
        "mean.",
    ),
    "FS107": Kind(
        "key is not text",
        "Keys are words, and YAML reads a bare number, true or false as something else. Choose a name that begins with "
        "a letter, as every node's id does, or write it in quotes.",
    ),
    "FS108": Kind(
        "YAML feature not used here",
        "Graphs keep to a small part of YAML, so that everybody can read them: no tags (!!str), no merge keys (<<), no "
        "directives (%YAML), one document. Write out what the feature stands for; a value that several nodes share can "
        "go into vars:.",
    ),
    "FS109": Kind(
        "file too deep or too big",
        "A file has at most 32 levels, 2,000 nodes and 100,000 values, counted with every alias written out, so that a "
        "small file cannot grow until it fills the memory. Look for brackets too many, for an alias used again and "
        "again, or for variables that use one another without end.",
    ),
    "FS110": Kind(
        "key without value in {...}",
        "Inside {...} there is a key, but no value. Mostly the space after the colon is missing (fps:30 is one word, "
        "fps: 30 a key and its value), or a text holds a comma, which ends it there: put that text in quotes.",
    ),
    "FS111": Kind(
        "wrong shape",
        "One kind of thing is expected at this place, a map (key: value), a list or a single value, and another stands "
        "there. Nodes, for example, are a map from ids to nodes and not a list. A graph in which no node is left to "
        "run has this code too.",
    ),
    "FS112": Kind(
        "unknown key",
        "This map has a fixed set of keys, and this one is not among them. It is refused and not passed over, because "
        "mostly it is misspelt, or stands one level too high or too low.",
    ),
    "FS113": Kind(
        "not supported yet",
        "The word is reserved for something that the graph language may have one day. This version does nothing with "
        "it: take it out.",
    ),
    "FS114": Kind(
        "language version",
        "flowstream: at the top says for which version of the graph language a file is written, and this program does "
        "not know that one. Write flowstream: 1, or install a newer flowstream for a newer file.",
    ),
    "FS115": Kind(
        "empty value",
        "A key without a value means nothing. What belongs to it may be commented out, or indented too little. Give it "
        "a value, or take the key out: then the default holds.",
    ),
    "FS120": Kind(
        "unset variable",
        "$(name) puts in the value of an entry of vars:, and there is no such entry, or it has no value. Check the "
        "spelling, declare it under vars:, or give it a value with --set NAME=VALUE. What stands in the environment is "
        "written $(env:NAME).",
    ),
    "FS121": Kind(
        "environment variable not set",
        "$(env:NAME) puts in an environment variable of the command, and NAME is not set there. Set it before the "
        "command, or in the service that starts it. For what is no secret, an entry of vars: with a default is easier.",
    ),
    "FS122": Kind(
        "variables form a loop",
        "A variable may use others. These use one another in a circle, so none of them ever has a value. Give one of "
        "them a value of its own.",
    ),
    "FS123": Kind(
        "substitution not understood",
        "Values are put in with round brackets: $(name), $(env:NAME), $(date) and $(time). The ${name} of a shell is "
        "not known here. For a dollar sign before a bracket, write $$.",
    ),
    "FS124": Kind(
        "unused variable",
        "Nothing in the graph uses this entry of vars:, so changing it changes nothing. Use it as $(name), or take it "
        "out.",
        "warning",
    ),
    "FS125": Kind(
        "--set names no variable",
        "--set NAME=VALUE gives an entry of vars: another value, and the graph has no entry NAME. Check the spelling, "
        "or declare it under vars:, where everybody sees what can be set.",
    ),
    "FS126": Kind(
        "variable name",
        "A variable's name is a lower case word: letters, digits, - and _, a letter first. $(date) and $(time) are "
        "taken: they are when the run began. Choose another name.",
    ),
    "FS127": Kind(
        "name is taken",
        "The language itself uses this word at this place, or it cannot be a name at all. The variables and ports of a "
        "graph that others use: are keys of those nodes, so none can be called label or restart. Choose another name.",
    ),
    "FS130": Kind(
        "file not found",
        "A file that include: or use: names is not there, or may not be read. Paths count from the file that names "
        "them, not from the folder that the command runs in.",
    ),
    "FS131": Kind(
        "files form a loop",
        "A file includes or uses itself, directly or through others, so there would be no end of it. Take one of these "
        "includes or uses out; what both files need can go into a third one.",
    ),
    "FS133": Kind(
        "layer replaces a node",
        "A layer changes settings of a node that a layer below it has. With another type: the old settings mean "
        "nothing, so all of the node is replaced, its inputs too. That is as it should be if the layer writes the "
        "whole node.",
        "note",
    ),
    "FS134": Kind(
        "nothing to take away",
        "null in a layer takes away what a layer below it has, and below it there is no such thing. Mostly the name "
        "is misspelt, and what was to go stays. Mend the name, or take the line out.",
        "warning",
    ),
    "FS135": Kind(
        "key without effect here",
        "The file is used as a node of another graph, and this key is for the graph that is run: there is one address, "
        "one log and one placement for all. Move it there, or take it out.",
        "warning",
    ),
    "FS136": Kind(
        "value not known yet",
        "The file is a part for other graphs, which give this variable its value. Checked on its own, what uses the "
        "variable cannot be checked; check a graph that uses the part, or give the variable a default.",
        "note",
    ),
    "FS199": Kind(
        "more findings",
        "Of a file with very many mistakes the first 200 are shown: that many tend to have one cause. Mend it, and "
        "check again.",
    ),
    "FS201": Kind(
        "node id",
        "A node's id is a lower case word: letters, digits and hyphens, a letter first, at most 63 characters. It "
        "stands in links, in logs and in references such as encode.packets, so it has no spaces, dots or capitals. A "
        "name for people goes into label:.",
    ),
    "FS202": Kind(
        "node without a type",
        "Every node says what it is with type: NAME. This one does not, or the key is misspelt. `flowstream nodes` "
        "lists the types there are.",
    ),
    "FS203": Kind(
        "unknown node type",
        "There is no node type of this name: it is misspelt, or the pack that brings it is not installed. `flowstream "
        "nodes` lists what there is; a folder with node types of your own is named with --nodes FOLDER.",
    ),
    "FS204": Kind(
        "node pack does not load",
        "The pack that should bring this node type failed when Python loaded it, so none of its types can be used. The "
        "finding says what it failed at: mend the pack, or install what it lacks. `flowstream nodes` lists every pack "
        "that does not load.",
    ),
    "FS205": Kind(
        "library not installed",
        "The node type is there, but it needs a Python library that is not. Install it, as the hint says, into the "
        "environment that flowstream runs in.",
    ),
    "FS206": Kind(
        "unknown setting",
        "The node type has no setting of this name. It is refused and not passed over, because mostly it is misspelt. "
        "`flowstream nodes TYPE` lists the settings with their units and defaults.",
    ),
    "FS207": Kind(
        "missing value",
        "Something is left out that has no default and cannot be guessed, such as the path of a recording. Add it; "
        "`flowstream nodes TYPE` says which settings are required, and what they take.",
    ),
    "FS208": Kind(
        "bad value",
        "The value is of the wrong kind, out of range, or lacks its unit; the finding says what can stand here. "
        "Bitrates, durations and byte sizes always have a unit (2.5M, 250ms, 64KiB), because a bare number can be read "
        "in several ways. Frame rates and counts have none.",
    ),
    "FS209": Kind(
        "from and inputs together",
        "A node says in one way what it takes: with from:, or with inputs: where each input is named. With both it is "
        "not clear which input from: means. Keep inputs:, and name that input there.",
    ),
    "FS210": Kind(
        "type and use together",
        "A node is of a type, or stands for the graph of another file (use:). It cannot be both. Keep one of them.",
    ),
    "FS211": Kind(
        "unknown parameter",
        "What a node with use: is given are values for the vars: of that file, and the file has no variable of this "
        "name. Check the spelling, or declare the variable there.",
    ),
    "FS212": Kind(
        "missing parameter",
        "The graph that the node uses has a variable without a default, so whoever uses it has to give it. Add it to "
        "the node, or give the variable a default in that file.",
    ),
    "FS213": Kind(
        "two nodes of one id",
        "Every node has an id of its own. Those inside a node with use: are called NODE/INNER, and another node has "
        "that id too. Give one of them another id.",
    ),
    "FS214": Kind(
        "open address without a word on TLS",
        "The address is reached by other machines. Without TLS whoever is on the way can see what is shown, use the "
        "links of viewers and change the page, so it is served in the clear only when the graph says that this is "
        "meant. tls: auto makes a certificate, which browsers warn of once; tls: {cert: FILE, key: FILE} takes one of "
        "yours; tls: off is for where something else encrypts, such as a proxy in front or a VPN.",
    ),
    "FS301": Kind(
        "unknown node",
        "A node takes from one that the graph does not have. Mostly its id is misspelt, or that node was renamed or "
        "taken out.",
    ),
    "FS302": Kind(
        "unknown output",
        "The node has no output of the name after the dot. `flowstream nodes TYPE` lists the outputs of a type. Where "
        "only one output fits, the node's id alone is enough.",
    ),
    "FS303": Kind(
        "unknown input",
        "inputs: names an input that the node type does not have, or from: stands on a node that takes nothing. "
        "`flowstream nodes TYPE` lists the inputs of a type.",
    ),
    "FS304": Kind(
        "ambiguous output",
        "Several outputs of the node give what is taken here, and none of them is the main one. Write which one is "
        "meant: NODE.OUTPUT.",
    ),
    "FS305": Kind(
        "payload mismatch",
        "The output gives one kind of payload and the input takes another: pictures (VideoFrame), sound (AudioFrame), "
        "encoded media (EncodedPacket) and data (Record) are different things. Take from another node, or put one "
        "between them that makes the one into the other, such as an encoder or a decoder.",
    ),
    "FS306": Kind(
        "formats cannot meet",
        "Output and input carry the same kind of payload, in formats that have nothing in common: Opus, for example, "
        "where H.264 is taken. Use another input, take another output, or put a node between them that converts.",
    ),
    "FS307": Kind(
        "missing input",
        "The node needs something on this input, and nothing is connected to it. Write from: NODE, or name the input "
        "under inputs:. A node that is not wanted for now can be set aside with enabled: false.",
    ),
    "FS308": Kind(
        "two producers on one input",
        "This input takes one edge, and several come in: two streams become one only in a node that combines them. "
        "Keep one of them.",
    ),
    "FS309": Kind(
        "loop",
        "Media flows in one direction, from sources to where it is shown or kept: nodes that take from one another in "
        "a circle would wait for ever. Take one of these edges out; only inputs made for feedback may close a loop.",
    ),
    "FS310": Kind(
        "node is disabled",
        "The node that this one takes from has enabled: false, so nothing would come. Enable that one, disable this "
        "one too, or take from another.",
    ),
    "FS311": Kind(
        "ambiguous input",
        "With from: the input is found by what comes in, and here that fits several inputs of the node equally well. "
        "Name the one that is meant under inputs:.",
    ),
    "FS312": Kind(
        "reference not understood",
        "What a node takes is written NODE, or NODE.OUTPUT where one of several outputs is meant: the id as it stands "
        "under nodes:, and a dot before the output.",
    ),
    "FS313": Kind(
        "renamed from a node that is still there",
        "was: names the id that a node had before, so that a reload keeps it, and its viewers, under the new one. Here "
        "a node of that id still exists, or two nodes name the same. Take was: out, or rename the other node.",
    ),
    "FS314": Kind(
        "open input",
        "The file is a part: other graphs use: it and give something to the inputs it names. Run on its own, nothing "
        "would come in there. Run a graph that uses it; `flowstream check` takes the part as it is.",
    ),
    "FS315": Kind(
        "placed twice",
        "A node runs on one worker, and this one is given to several, or twice. Keep one of them.",
    ),
    "FS316": Kind(
        "placement is not used",
        "placement: says on which worker each node is to run. A run on one machine checks it, and takes no further "
        "notice of it: every node runs here.",
        "note",
    ),
    "FS320": Kind(
        "option without effect",
        "The option changes nothing on this edge, so it does not do what it seems to. Take it out, or choose the "
        "overflow policy that it goes with.",
        "warning",
    ),
    "FS321": Kind(
        "one consumer can stop the others",
        "An edge with overflow: block makes its producer wait when it is full, and with it everything else that takes "
        "from that producer: one slow recording would freeze the picture for all viewers. Choose a policy that drops.",
        "warning",
    ),
    "FS322": Kind(
        "output not used",
        "Nothing takes what this node gives, so it works for nothing. Take from it, or set it aside with enabled: "
        "false. One that is to run anyway can end in type: discard.",
        "warning",
    ),
    "FS323": Kind(
        "coded pictures cut apart",
        "Encoded pictures build on one another, so losing any of them spoils those that follow, up to the next "
        "keyframe. overflow: drop-to-keyframe drops whole groups instead; it is the default while live.",
        "warning",
    ),
}
