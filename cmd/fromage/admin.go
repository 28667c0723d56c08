// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fromage/server/client"
	"fromage/server/hub"
	"fromage/server/store"
	versions "fromage/server/version"
)

func (a *app) adminCommand() *cobra.Command {
	data := ""
	c := &cobra.Command{
		Use: "admin", Short: "look after the versions of a fromage serve --data",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&data, "data", "", "the `FOLDER` or bucket of versions")
	with := func(f func(ctx context.Context, s *store.Store, args []string) error) func(*cobra.Command, []string) error {
		return func(c *cobra.Command, args []string) error {
			if data == "" {
				return fmt.Errorf("admin %s: want --data FOLDER", c.Name())
			}
			if !strings.Contains(data, "://") {
				if _, err := os.Stat(data); err != nil {
					return fmt.Errorf("--data: %w", err)
				}
			}
			s, err := store.Open(c.Context(), data)
			if err != nil {
				return err
			}
			defer s.Close()
			return f(c.Context(), s, args)
		}
	}
	gc := &cobra.Command{Use: "gc", Short: "drop old versions, and pieces that nothing refers to", Args: cobra.NoArgs}
	keep := gc.Flags().Int("keep", 20, "how many of the newest versions stay, besides those with a pin")
	grace := gc.Flags().Duration("grace", store.Grace, "what is younger stays: somebody may be publishing on it")
	gc.RunE = with(func(ctx context.Context, s *store.Store, _ []string) error {
		if *keep < 1 {
			return fmt.Errorf("--keep: want 1 or more, have %d", *keep)
		}
		done, err := s.Collect(ctx, *keep, *grace)
		if err != nil {
			return err
		}
		return a.said(done, "%d versions dropped, %d pieces of %d bytes removed, %d kept\n", done.Versions, done.Pieces, done.Bytes, done.Kept)
	})
	c.AddCommand(
		&cobra.Command{Use: "list", Short: "list the versions", Args: cobra.NoArgs, RunE: with(a.adminList)},
		&cobra.Command{Use: "rollback VERSION", Short: "publish an earlier version again, as the newest", Args: takes(1, 1), RunE: with(a.adminRollback)},
		&cobra.Command{Use: "pin VERSION", Short: "have gc keep a version", Args: takes(1, 1), RunE: with(a.adminPin(true))},
		&cobra.Command{Use: "unpin VERSION", Short: "have gc keep it no longer than others", Args: takes(1, 1), RunE: with(a.adminPin(false))},
		&cobra.Command{Use: "check", Short: "read every piece of the current version and name those that are missing or damaged", Args: cobra.NoArgs, RunE: with(a.adminCheck)},
		gc, a.adminTokenCommand(),
	)
	return c
}

func (a *app) adminList(ctx context.Context, s *store.Store, _ []string) error {
	all, err := s.Versions(ctx)
	if err != nil {
		return err
	}
	pins, err := s.Pins(ctx)
	if err != nil {
		return err
	}
	for i, v := range all {
		if a.json {
			err = a.writeLine(map[string]any{"seq": v.Seq, "id": v.ID, "time": v.Time, "by": v.By, "note": v.Note, "pin": pins[v.Seq], "models": v.Models})
		} else {
			mark := ""
			if pins[v.Seq] {
				mark = "  pinned"
			}
			if i == len(all)-1 {
				mark += "  current"
			}
			_, err = fmt.Fprintf(a.stdout, "%d  %s  %s  %s  %s  %s%s\n", v.Seq, v.ID.String()[:12], v.Time.Format(time.RFC3339), v.By, summary(v.Manifest), v.Note, mark)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// summary is a version's models in a few words.
func summary(m *versions.Manifest) string {
	var all []string
	for _, x := range m.Models {
		heads := ""
		if x.Heads != nil {
			heads = " new heads"
		}
		all = append(all, fmt.Sprintf("%s:%s %d pictures", x.Name, heads, x.Gallery.Rows))
	}
	return strings.Join(all, ", ")
}

func parseSeq(text string) (uint64, error) {
	seq, err := strconv.ParseUint(text, 10, 64)
	if err != nil || seq == 0 {
		return 0, fmt.Errorf("want a version's number, have %q", text)
	}
	return seq, nil
}

func (a *app) adminRollback(ctx context.Context, s *store.Store, args []string) error {
	seq, err := parseSeq(args[0])
	if err != nil {
		return err
	}
	return a.published(client.To(s, "fromage admin").Commit(ctx, &versions.Change{Rollback: seq}))
}

func (a *app) adminPin(keep bool) func(context.Context, *store.Store, []string) error {
	return func(ctx context.Context, s *store.Store, args []string) error {
		seq, err := parseSeq(args[0])
		if err != nil {
			return err
		}
		if err := s.Pin(ctx, seq, keep); err != nil {
			return err
		}
		return a.said(map[string]any{"seq": seq, "pin": keep}, "version %d: pinned: %t\n", seq, keep)
	}
}

func (a *app) adminCheck(ctx context.Context, s *store.Store, _ []string) error {
	v, _, err := s.Current(ctx)
	if err != nil {
		return err
	}
	if v == nil {
		return no{errors.New("there is no version")}
	}
	bad, err := s.Audit(ctx, v.Manifest)
	if err != nil {
		return err
	}
	if err := a.said(map[string]any{"seq": v.Seq, "bad": bad}, "version %d: %d pieces missing or damaged %v\n", v.Seq, len(bad), bad); err != nil {
		return err
	}
	if len(bad) > 0 {
		return no{fmt.Errorf("version %d is not whole: a fromage pull from a server that has it, or publishing again, heals it", v.Seq)}
	}
	return nil
}

func (a *app) adminTokenCommand() *cobra.Command {
	var scopes []string
	file := ""
	c := &cobra.Command{
		Use: "token NAME", Short: "make a token that may publish: it is printed, and what the server needs to know of it is appended to --tokens",
		Args: takes(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if file == "" {
				return errors.New("admin token: want --tokens FILE")
			}
			secret, line, err := hub.NewToken(args[0], scopes)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				return err
			}
			if _, err := f.WriteString(line); err != nil {
				f.Close()
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			return a.said(map[string]any{"name": args[0], "scopes": scopes, "token": secret}, "%s\n", secret)
		},
	}
	c.Flags().StringSliceVar(&scopes, "scopes", nil, "what it may publish: "+strings.Join(hub.Scopes, ", "))
	c.Flags().StringVar(&file, "tokens", "", "the `FILE` that fromage serve --tokens reads")
	return c
}
