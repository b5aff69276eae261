// Package rootlesskit is sbxnet under the name of rootlesskit.
package rootlesskit
