package main

// What the manual page says beside the table.

var proseDescription = []string{
	"dstctl configures dstd, the daemon of the network block device dst, and shows what it does. " +
		"It speaks the generic netlink family dst with the daemon of its network namespace; it keeps nothing itself. Every command needs root.",
	"A node is anything with a name. An export is a node that offers local storage, a file or a block device. " +
		"A remote is a node whose storage is elsewhere. Both share one name space.",
	"A command is understood wholly before anything is sent. Words behind the name may come in any order, each at most once.",
}

var proseOutput = []string{
	"Without options a node is shown as two lines, in the words that made it: its state, and what it is made of. " +
		"A line \"reason\" says why it is in that state, a line \"warning\" what should be looked at.",
	"Sizes are shown in powers of 1024 and shortened; with -d in exact bytes. Counters are exact; with -h they are shortened.",
	"With -j the answer is one JSON document with the same content, in which \"schema\" is 1: fields are added to a schema, but never renamed or removed. " +
		"Sizes are bytes and times milliseconds (names that end in _ms), always as numbers.",
	"Errors are one line on the standard error that begins with \"Error:\" and says what to do. " +
		"Where a word is to blame the command follows, with a mark under that word.",
}

var proseBatch = []string{
	"Each line of the file is a command without \"dstctl\" and options. A # where a word would begin starts a comment, " +
		"a backslash at the end of a line continues it, a word in ' or \" may hold spaces. Words are written in full.",
	"A file is understood whole before anything is sent: a mistake in its last line leaves nothing half done. " +
		"The standard input, and a file with -force, is taken line by line. " +
		"The first failure ends the batch, with -force the rest is still tried. All lines use one connection to the daemon.",
	"Remotes that are started do not hold up the next line: the end of the batch waits for all of them, at most the time of -wait.",
}

var proseExit = []string{
	exitDone:     "Done.",
	exitMistake:  "The command was not understood; nothing was sent.",
	exitRefused:  "The daemon or the kernel refused.",
	exitPartly:   "Partly done: some lines of a batch failed.",
	exitNoDaemon: "No daemon answers.",
	exitNotYet:   "Not yet: a wait ran out, the node keeps trying.",
}

var proseAbbreviations = []string{
	"On a terminal an object or command may be shortened to any beginning that only it has. " +
		"In scripts, in batch files and with -j words are written in full, so that a new command never changes what an old script means.",
}
