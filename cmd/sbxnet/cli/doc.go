// Package cli reads command lines: an [App] with flags, or with commands that
// have flags, and the arguments behind them.
//
// It reads what the standard library's flag package does, and reports what it
// cannot read in the same words: flags with one dash or two, a value behind "="
// or in the next argument, "=false" for switches, and no more flags after the
// first argument that is none, or after "--". A flag may have more than one
// name. -h and --help are known everywhere.
//
// It is here, and no package of others, for what those bring along: every
// sandbox has this program in memory twice. urfave/cli renders help with
// text/template, and calls of methods by name as in there keep the linker from
// dropping any; with a renderer of manual pages besides, that was 2 MB of each
// sandbox's memory. This package builds nothing at start, and prints help that
// it is given.
package cli
