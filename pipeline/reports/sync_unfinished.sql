-- The runs in the view `changed` (a part of `runs`, or all) that are not finished, of some kinds: those created since a
-- time, or all. Where a run's creation is not known, its file's stands for it.
SELECT run_id
FROM changed
WHERE (status IS NULL OR status NOT IN (SELECT unnest($finished)))
    AND deleted_at IS NULL
    AND kind IN (SELECT unnest($kinds))
    AND workspace_id IS NOT DISTINCT FROM $workspace
    -- What was heard of meanwhile need not be asked for again.
    AND fetched_at < CAST($heard_before AS TIMESTAMPTZ)
    AND ($since IS NULL OR coalesce(created_at, initial_run_at, file_created_at, fetched_at) >= CAST($since AS TIMESTAMPTZ))
ORDER BY run_id
