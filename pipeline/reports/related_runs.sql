-- Other runs that may tell of the same documents as some runs do: those of the same files, those that were made for these
-- or that these were made for, and those whose text these used.
WITH named AS (
    SELECT
        run_id,
        file_id,
        parse_run_id,
        breakdown
    FROM runs
    WHERE run_id IN (SELECT unnest($run_ids))
),
related AS (
    SELECT run_id FROM runs WHERE file_id IN (SELECT file_id FROM named)
    UNION
    SELECT run_id FROM runs WHERE parse_run_id IN (SELECT unnest($run_ids))
    UNION
    SELECT parse_run_id FROM named
    UNION
    SELECT entry.id FROM (SELECT unnest(breakdown) AS entry FROM named)
    UNION
    SELECT run_id
    FROM (SELECT run_id, unnest(breakdown) AS entry FROM runs WHERE len(breakdown) > 0)
    WHERE entry.id IN (SELECT unnest($run_ids))
)
SELECT run_id
FROM related
SEMI JOIN runs USING (run_id)
WHERE run_id NOT IN (SELECT unnest($run_ids))
ORDER BY run_id
