-- Messages of failed runs, those that differ only in numbers, IDs and names as one: `pattern` has them folded, `example`
-- is one of them as it came.
WITH failed AS (
    SELECT
        *,
        -- The run's own names first: they may hold anything.
        replace(
            replace(failure_message, coalesce(nullif(file_name, ''), chr(0)), '<file>'),
            CASE WHEN len(processor_name) >= 3 THEN processor_name ELSE chr(0) END,
            '<processor>'
        ) AS unnamed
    FROM asked
    WHERE status = 'FAILED'
),
folded AS (
    SELECT
        *,
        -- From the inside out: UUIDs, quoted text, file names, IDs (exr_…, file_…; long hexadecimal ones), numbers.
        regexp_replace(
            regexp_replace(
                regexp_replace(
                    regexp_replace(
                        regexp_replace(
                            unnamed,
                            '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}', '<id>', 'g'
                        ),
                        '"[^"]*"|“[^”]*”|\B''[^'']*''\B|`[^`]*`', '<name>', 'g'
                    ),
                    '\b[\w.-]+\.(pdf|docx?|xlsx?|pptx?|png|jpe?g|tiff?|csv|txt|html?|eml|heic|zip)\b', '<file>', 'gi'
                ),
                '\b[a-z]+(_[a-z]+)*_[\w-]*[0-9A-Z][\w-]*|\b[0-9A-Fa-f]*[0-9][0-9A-Fa-f]{11,}\b', '<id>', 'g'
            ),
            '[0-9]+([.,:][0-9]+)*', '<n>', 'g'
        ) AS pattern
    FROM failed
)
SELECT
    COLUMNS('^by_(.+)$') AS '\1',
    pattern,
    count(*) AS failed,
    count(DISTINCT processor_id) AS processors,
    min(created_on) AS first_day,
    max(created_on) AS last_day,
    min(failure_message) AS example,
    min(run_id) AS example_run_id
FROM folded
GROUP BY ALL
ORDER BY failed DESC, pattern, COLUMNS('^by_.+$') NULLS LAST
LIMIT $most
