// Package console is how sbxnet, under each of its names, speaks to whoever sits
// at the terminal: log lines and error lines.
//
// What is printed is one line, whatever was in it: an error may quote a hostile
// flag value, a file name with escape sequences in it, or come from a library
// that likes paragraphs. Nothing here decides what is said, or exits.
package console
