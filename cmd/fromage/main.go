// SPDX-License-Identifier: Apache-2.0

// Command fromage compiles, inspects and runs FROMAGe models: it chats about pictures, answers, captions, retrieves and scores, and keeps image indexes.
//
// What enters is arguments, files and lines of text; what leaves is text, JSON, bundles, indexes and HTML. It is the one place that knows terminals,
// folders and which device to open; everything it computes is done by the packages it calls.
//
// It exits with 0, with 1 where the input was good and the computation says no (a verification that fails, for example), with 2 for bad input or
// usage, and with 130 where Ctrl-C, SIGTERM or SIGHUP ended it.
package main

import "os"

func main() { os.Exit(doMain(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
