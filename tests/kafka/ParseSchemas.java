import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.TreeMap;
import org.apache.avro.LogicalType;
import org.apache.avro.LogicalTypes;
import org.apache.avro.Schema;

/** Parses every file named with Java's Avro; prints each logical type it knows, and how often. */
public final class ParseSchemas {
    private static final TreeMap<String, Integer> logical = new TreeMap<>();
    private static int columns;

    private static void walk(Schema start) {
        Deque<Schema> open = new ArrayDeque<>();

        open.push(start);
        while (!open.isEmpty()) {
            Schema schema = open.pop();
            String named = schema.getProp("logicalType");

            if (named != null) {
                LogicalType known = LogicalTypes.fromSchema(schema);
                if (known == null)
                    throw new IllegalStateException("a logical type that Avro does not take: " + schema);
                logical.merge(known.getName(), 1, Integer::sum);
            }
            switch (schema.getType()) {
            case UNION -> schema.getTypes().forEach(open::push);
            case ARRAY -> open.push(schema.getElementType());
            case RECORD -> schema.getFields().forEach(field -> {
                columns += field.getProp("lockstep.column") == null ? 0 : 1;
                open.push(field.schema());
            });
            default -> { }
            }
        }
    }

    public static void main(String[] files) throws Exception {
        for (String file : files) {
            Schema.Parser parser = new Schema.Parser();

            parser.setValidateDefaults(true);
            try {
                walk(parser.parse(Files.readString(Path.of(file))));
            } catch (RuntimeException e) {
                throw new IllegalStateException(file + ": " + e.getMessage(), e);
            }
        }
        System.out.println(files.length + " schemas, " + columns + " columns, " + logical);
    }
}
