// Package slirp4netns is sbxnet under the name of slirp4netns.
package slirp4netns
